"""Reads a volume as it is, whoever writes to it meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from backupd.model import TarReport, Volume, VolumeSpec
from backupd.runtime import Runtime
from backupd.services import Outcome, Service, Source, TarStream


class LiveStrategy:
    """No service is touched. Files that are written to meanwhile may be of no use in the copy."""

    name = "live"

    def __init__(self, spec: VolumeSpec, volume: Volume, users: Sequence[Service], runtime: Runtime) -> None:
        del spec, volume
        self._users = users
        self._runtime = runtime

    def read(self, source: Source) -> _LiveReading:
        """See Strategy."""
        writing = [user.name for user in self._users if user.alive and user.writes(source.volume)]
        if writing:
            self._runtime.progress.note(
                f"{source.spec.name}: copied as it is, while {', '.join(writing)} can write to it"
            )
        return _LiveReading(self._runtime, source)


class _LiveReading:
    def __init__(self, runtime: Runtime, source: Source) -> None:
        self._runtime = runtime
        self._source = source

    def next(self, last: TarReport | None) -> TarStream | None:
        """See Reading."""
        if last is not None:
            return None
        return self._runtime.engine.tar_out(self._source.volume, self._source.spec.exclude)

    def outcome(self) -> Outcome:
        """See Reading."""
        return Outcome("live")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Nothing was held."""
