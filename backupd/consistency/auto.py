"""Reads a volume as it is, and once more at a standstill if something was written meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from types import TracebackType
from typing import Self

from backupd.consistency.standstill import HeldStream, Standstill, writers
from backupd.consistency.written import Watch
from backupd.model import TarReport, Volume, VolumeSpec
from backupd.runtime import Runtime
from backupd.services import Outcome, Service, Source, TarStream


class AutoStrategy:
    """No downtime where nothing was written, a short one where something was.

    The second pass builds upon the first, so the writers stand for a reading, not for the storing.
    """

    name = "auto"

    def __init__(self, spec: VolumeSpec, volume: Volume, users: Sequence[Service], runtime: Runtime) -> None:
        del spec, volume, users
        self._runtime = runtime

    def read(self, source: Source) -> _AutoReading:
        """See Strategy."""
        return _AutoReading(source, self._runtime)


class _AutoReading:
    def __init__(self, source: Source, runtime: Runtime) -> None:
        self._source = source
        self._runtime = runtime
        self._standstill = Standstill(runtime)
        self._watch: Watch | None = None
        self._begun: datetime | None = None
        self._moved = 0
        self._held = False

    def next(self, last: TarReport | None) -> TarStream | None:
        """See Reading."""
        if last is None:
            if writers(self._runtime, self._source.volume):
                self._watch = Watch.begin(self._runtime, self._source)
                if self._watch.since is None and not self._source.first:
                    return self._at_a_standstill()  # as it will come to that in any case
            self._begun = self._runtime.clock.now()
            return self._runtime.engine.tar_out(self._source.volume, self._source.spec.exclude)
        if self._held:
            return None
        self._moved = last.moved_count
        if not writers(self._runtime, self._source.volume) or not self._was_written(last):
            return None
        return self._at_a_standstill()

    def _at_a_standstill(self) -> TarStream:
        self._held = True
        return HeldStream(self._runtime, self._source, self._hold, self._standstill.end)

    def _was_written(self, last: TarReport) -> bool:
        if last.moved_count:
            return True
        return self._watch is None or self._watch.saw_a_change()

    def _hold(self) -> None:
        self._standstill.begin(writers(self._runtime, self._source.volume), "pause")

    def outcome(self) -> Outcome:
        """See Reading."""
        if self._held:
            return self._standstill.outcome("auto: paused")
        if self._moved:
            return Outcome("auto: live, while files changed")
        return Outcome("auto: nothing was written", self._begun)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._standstill.end()
