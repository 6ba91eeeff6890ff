"""All volumes of a plan, read at one moment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

from backupd.backup.passes import Passes, Target, with_outcome
from backupd.errors import BackupdError
from backupd.hooks import Around
from backupd.model import Volume, VolumeSpec
from backupd.repository import Archive
from backupd.services import Source, TarStream, Together

Failed = Callable[[VolumeSpec, BackupdError], None]


class _Reader:
    """One volume among the others."""

    def __init__(self, passes: Passes, around: Around) -> None:
        self.passes = passes
        self.around = around
        self.source = passes.source

    @property
    def spec(self) -> VolumeSpec:
        return self.passes.choice.spec

    def read(self, stream: TarStream | None) -> None:
        if stream is not None:
            self.passes.add(stream)

    def commit(self, moment: Together) -> Archive:
        archive = self.passes.commit()
        return with_outcome(archive, moment.outcome(self.source), self.around.trouble)


def read_together(target: Target, found: Sequence[tuple[VolumeSpec, Volume]], failed: Failed) -> list[Archive]:
    """Archive these volumes, whose locks are held, as they are at one moment. `failed` is told of those that fail.

    First everything is read once while services run, and stored; then they are held, and what has changed is read; what
    that came to is stored when they are let go.
    """
    with ExitStack() as stack:
        readers = [reader for spec, volume in found if (reader := _begin(target, spec, volume, failed, stack))]
        if not readers:
            return []
        moment = stack.enter_context(
            target.runtime.strategies.together(
                [(reader.passes.choice, reader.source) for reader in readers], target.runtime
            )
        )
        readers = _each(readers, lambda reader: reader.read(moment.rehearse(reader.source)), failed)
        readers = _each(readers, lambda reader: reader.passes.settle(), failed)
        first = moment.hold()
        readers = _read_some(readers, moment, first, failed)
        moment.release()
        rest = [reader.source for reader in readers if not _among(reader.source, first)]
        readers = _read_some(readers, moment, rest, failed)
        for reader in readers:
            reader.around.finish()
        archives: list[Archive] = []
        _each(readers, lambda reader: archives.append(reader.commit(moment)), failed)
        return archives
    raise AssertionError  # pragma: no cover - the block above swallows nothing


def _begin(target: Target, spec: VolumeSpec, volume: Volume, failed: Failed, stack: ExitStack) -> _Reader | None:
    try:
        passes = stack.enter_context(Passes.begin(target, spec, volume))
        hooks = passes.choice.spec
        return _Reader(passes, stack.enter_context(Around(target.runtime, hooks.pre, hooks.post, [volume])))
    except BackupdError as exc:
        failed(spec, exc)
        return None


def _read_some(readers: list[_Reader], moment: Together, which: Sequence[Source], failed: Failed) -> list[_Reader]:
    chosen = [reader for reader in readers if _among(reader.source, which)]
    done = _each(chosen, lambda reader: reader.read(moment.read(reader.source)), failed)
    return [reader for reader in readers if reader not in chosen or reader in done]


def _each(readers: Sequence[_Reader], act: Callable[[_Reader], None], failed: Failed) -> list[_Reader]:
    """Do it for each; returns those with which it went well."""
    good = []
    for reader in readers:
        try:
            act(reader)
        except BackupdError as exc:
            failed(reader.spec, exc)
        else:
            good.append(reader)
    return good


def _among(source: Source, sources: Sequence[Source]) -> bool:
    return any(other is source for other in sources)
