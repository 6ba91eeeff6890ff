"""What the strategies that hold services share: who writes, a standstill that ends with a stream, what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Self

from backupd.clone import Clone
from backupd.errors import BackupdError
from backupd.journal import Hold
from backupd.model import TarReport, Volume
from backupd.quiesce import HEALTHY_WITHIN_SECONDS, Held, holding, wait_until_healthy
from backupd.runtime import Runtime
from backupd.services import Outcome, Service, Source, TarStream

# What runs so long after its start has not failed at once. Usually storing has taken longer by then.
_SETTLE_SECONDS = 1.0


def writers(runtime: Runtime, volume: Volume) -> Sequence[Service]:
    """The containers that may write to the volume now."""
    return [user for user in runtime.engine.services.users(volume) if user.alive and user.writes(volume)]


class Standstill:
    """Services that stand from `begin` to `end`. `end` raises nothing: what does not go on is in `trouble`."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._resources = ExitStack()
        self._held: Held | None = None
        self._ended = 0.0
        self.trouble: list[str] = []

    def begin(self, services: Sequence[Service], how: Hold, stop: Collection[str] = ()) -> None:
        """Hold these, those whose ids are in `stop` by stopping them. If one can't be held, none is. Called once."""
        self._held = self._resources.enter_context(holding(self._runtime, services, how, stop))

    def end(self) -> None:
        """Let all go; may be repeated."""
        try:
            self._resources.close()
        except BackupdError as exc:
            self.trouble.append(str(exc))
            self._runtime.progress.note(f"{exc} ({exc.hint})" if exc.hint else str(exc))
        self._ended = self._ended or time.monotonic()

    @property
    def since(self) -> datetime | None:
        """The moment at which all stood."""
        return self._held.since if self._held else None

    @property
    def downtime_seconds(self) -> Mapping[str, float]:
        """How long each service stood."""
        return {
            name: round(seconds, 3) for name, seconds in (self._held.downtime_seconds if self._held else {}).items()
        }

    def outcome(self, consistency: str) -> Outcome:
        """What came of it, when those that were stopped are healthy again or have had their time."""
        deadline = time.monotonic() + HEALTHY_WITHIN_SECONDS
        if self._held and any(not service.has_health_check for service in self._held.stopped):
            time.sleep(max(0.0, _SETTLE_SECONDS - (time.monotonic() - self._ended)))
        for service in self._held.stopped if self._held else ():
            try:
                if self._runtime.engine.services.inspect(service.id) is not None:
                    wait_until_healthy(self._runtime.engine.services, service, deadline - time.monotonic())
            except BackupdError as exc:
                if not self.trouble:
                    self._runtime.progress.note(f"after the backup {exc}")
                self.trouble.append(f"after the backup {exc}")
        return Outcome(consistency, self.since, self.downtime_seconds, tuple(dict.fromkeys(self.trouble)))


class HeldStream:
    """A pass over a volume whose writers stand from when the block is entered to the end of the stream.

    What takes time is made ready before. Where the file system can clone, they stand only for as long as that takes,
    and the clone is read.
    """

    def __init__(self, runtime: Runtime, source: Source, hold: Callable[[], None], release: Callable[[], None]) -> None:
        self._runtime = runtime
        self._source = source
        self._hold = hold
        self._release = release
        self._resources = ExitStack()

    def __enter__(self) -> Self:
        volume, exclude = self._source.volume, self._source.spec.exclude
        with ExitStack() as stack:
            clone = stack.enter_context(Clone(self._runtime, volume))
            read: Callable[[], TarStream] = partial(self._runtime.engine.tar_out, volume, exclude)
            if not clone.possible:
                read = stack.enter_context(self._runtime.engine.ready_to_read(volume, exclude))
            stack.callback(self._release)
            self._hold()
            if clone.take():
                self._release()
                read = partial(clone.tar_out, exclude)
            self._stream: TarStream = stack.enter_context(read())
            self._resources = stack.pop_all()
        return self

    def readinto(self, buffer: memoryview) -> int:
        """See TarStream. At its end the services go on."""
        count = self._stream.readinto(buffer)
        if not count:
            self._release()
        return count

    def finish(self) -> TarReport:
        """See TarStream."""
        return self._stream.finish()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._resources.__exit__(exc_type, exc, tb)
