"""A strategy that was found by looking, and another one for where it cannot do its work."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from backupd.errors import EngineUnavailable, SourceError, VolumeMissing
from backupd.model import TarReport
from backupd.runtime import Runtime
from backupd.services import Outcome, Reading, Source, Strategy, TarStream


class Otherwise:
    """Reads as the first does; as the second, with a note, if the first has an error before there is a stream."""

    def __init__(self, first: Strategy, second: Strategy, runtime: Runtime) -> None:
        self.name = first.name
        self._first = first
        self._second = second
        self._runtime = runtime

    def read(self, source: Source) -> _OtherwiseReading:
        """See Strategy."""
        return _OtherwiseReading(self._first, self._second, source, self._runtime)


class _OtherwiseReading:
    def __init__(self, first: Strategy, second: Strategy, source: Source, runtime: Runtime) -> None:
        self._first = first
        self._second = second
        self._source = source
        self._runtime = runtime
        self._reading: Reading | None = None

    def next(self, last: TarReport | None) -> TarStream | None:
        """See Reading."""
        if self._reading is not None:
            return self._reading.next(last)
        try:
            return self._begun(self._first).next(None)
        except (EngineUnavailable, VolumeMissing):
            raise
        except SourceError as exc:
            self.__exit__(type(exc), exc, exc.__traceback__)
            second = self._second.name
            self._runtime.progress.note(f"{self._source.spec.name}: not copied by {self._first.name}: {exc}")
            self._runtime.progress.note(f"{self._source.spec.name}: copied by {second} instead")
        return self._begun(self._second).next(None)

    def _begun(self, strategy: Strategy) -> Reading:
        reading = strategy.read(self._source)
        self._reading = reading.__enter__()
        return self._reading

    def outcome(self) -> Outcome:
        """See Reading."""
        assert self._reading is not None
        return self._reading.outcome()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._reading is not None:
            self._reading.__exit__(exc_type, exc, tb)
            self._reading = None
