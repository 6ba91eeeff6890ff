"""Reads a volume while all that writes to it is stopped or paused."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from types import TracebackType
from typing import Self

from backupd.consistency.standstill import HeldStream, Standstill, writers
from backupd.journal import Hold
from backupd.model import TarReport, Volume, VolumeSpec
from backupd.runtime import Runtime
from backupd.services import Outcome, Service, Source, TarStream


class HeldStrategy:
    """The containers that can write to the volume stand for as long as tar reads, and no longer.

    What has no earlier archive is read once before, while they run: then they stand for a reading of what has changed
    since, and not for the storing of everything.
    """

    def __init__(self, how: Hold, spec: VolumeSpec, volume: Volume, users: Sequence[Service], runtime: Runtime) -> None:
        del spec, volume, users
        self.name: str = how
        self._how = how
        self._runtime = runtime

    def read(self, source: Source) -> _HeldReading:
        """See Strategy."""
        return _HeldReading(self._how, source, self._runtime)


class _HeldReading:
    def __init__(self, how: Hold, source: Source, runtime: Runtime) -> None:
        self._how = how
        self._source = source
        self._runtime = runtime
        self._standstill = Standstill(runtime)
        self._begun: datetime | None = None
        self._passed = False

    def next(self, last: TarReport | None) -> TarStream | None:
        """See Reading."""
        if self._passed:
            return None
        writing = bool(writers(self._runtime, self._source.volume))
        self._passed = not (last is None and self._source.first and writing)
        if self._passed and writing:
            return HeldStream(self._runtime, self._source, self._hold, self._standstill.end)
        self._begun = self._runtime.clock.now()
        return self._runtime.engine.tar_out(self._source.volume, self._source.spec.exclude)

    def _hold(self) -> None:
        self._standstill.begin(writers(self._runtime, self._source.volume), self._how)

    def outcome(self) -> Outcome:
        """See Reading."""
        outcome = self._standstill.outcome(self._how)
        return outcome if outcome.moment else Outcome(self._how, self._begun)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._standstill.end()
