"""The passes in which one snapshot reads one volume, each building on the one before."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import datetime
from types import TracebackType
from typing import Self

import msgspec
from msgspec import Struct, field

from backupd.archive import codec_for
from backupd.backup.archiving import ArchiveJob, Origin, Pending
from backupd.backup.parent import Parent, find_parent
from backupd.errors import SourceError
from backupd.journal import Journal
from backupd.model import MIB, Plan, TarReport, Volume, VolumeSpec
from backupd.repository import Archive, Manifest, Repository
from backupd.runtime import Runtime
from backupd.services import Choice, Outcome, Source, TarStream

# As much is stored in a few seconds, wherever to.
MUCH_BYTES = 64 * MIB


class Target(Struct, frozen=True):
    """The snapshot that is being taken. `earlier` holds all others of the repository, newest first."""

    id: str
    plan: Plan
    runtime: Runtime
    repository: Repository
    earlier: list[Manifest]


class Passes(Struct):
    """A context manager: leaving drops what was not committed."""

    target: Target
    choice: Choice
    volume: Volume
    parent: Parent | None
    started: datetime
    pending: list[Pending] = field(default_factory=list)
    resources: ExitStack = field(default_factory=ExitStack)

    @classmethod
    def begin(cls, target: Target, spec: VolumeSpec, volume: Volume) -> Self:
        """Choose how to read the volume, whose lock is held, and what to build on."""
        runtime = target.runtime
        started = runtime.clock.now()
        if Journal(runtime.state).concerns(volume):
            raise SourceError(f"{volume} holds an interrupted restore", hint="`backupd recover` says what hinders it")
        choice = runtime.strategies.choose(spec, volume, runtime)
        every = target.plan.full_every
        parent = find_parent(target.repository, target.earlier, spec.name, every, started, runtime.progress)
        return cls(target, choice, volume, parent, started)

    @property
    def source(self) -> Source:
        """As strategies take it."""
        last = self._last
        much = last is not None and last.parent is not None and last.stored_size > MUCH_BYTES
        return Source(self.choice.spec, self.volume, first=self.parent is None or much)

    @property
    def _last(self) -> Archive | None:
        """The newest archive of the volume."""
        name = self.choice.spec.name
        return next((archive for manifest in self.target.earlier if (archive := manifest.archive(name))), None)

    def add(self, stream: TarStream) -> TarReport:
        """Read one more pass to its end. What the pass before had to store is stored first."""
        self.settle()
        runtime, name = self.target.runtime, self.choice.spec.name
        size = last.plain_size if (last := self._last) else None
        job = ArchiveJob(
            self.target.repository, codec_for(self.target.plan.compression), runtime.progress, runtime.clock
        )
        number = len(self.pending) + 1
        origin = Origin(
            self.target.id, self.volume, runtime.engine.tool(), self.choice.strategy.name, self.started, number
        )
        runtime.progress.begin(f"reading {name}{' again' if number > 1 else ''}", size)
        try:
            with stream:
                pending = job.read(stream, origin, self.parent, size)
        finally:
            runtime.progress.end()
        self.pending.append(self.resources.enter_context(pending))
        return pending.report

    def settle(self) -> None:
        """Store what the next pass is to build upon."""
        if self.pending:
            self.parent = self.pending[-1].as_parent()

    def commit(self) -> Archive:
        """Store what is left of the last pass. If it brought nothing new, the one before stays, which stands alone."""
        last = self.pending[-1]
        kept = next(number for number, pending in enumerate(self.pending) if pending.is_same_as(last))
        archive = self.pending[kept].commit(last.report)
        before = self.pending[:kept]
        return msgspec.structs.replace(
            archive,
            new_size=min(archive.new_size + sum(pending.new_size for pending in before), archive.plain_size),
            stored_size=archive.stored_size + sum(pending.stored_size for pending in before),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.resources.__exit__(exc_type, exc, tb)


def with_outcome(archive: Archive, outcome: Outcome, trouble: list[str]) -> Archive:
    """The archive with what its strategy has to say of it."""
    return msgspec.structs.replace(
        archive,
        consistency=outcome.consistency,
        moment=outcome.moment,
        downtime=dict(outcome.downtime_seconds),
        trouble=[*outcome.trouble, *trouble],
    )
