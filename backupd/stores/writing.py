"""The life of an object being written, the same for every store: open, then committed or aborted."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Literal, Self

from backupd.errors import BackupdError, StoreError
from backupd.model import ObjectInfo


class Writer(ABC):
    """An ObjectWriter. A write that failed makes `commit` impossible. Not thread-safe."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._state: Literal["open", "broken", "committed", "aborted"] = "open"

    @abstractmethod
    def _append(self, data: memoryview) -> None:
        """Take all of `data`, as bytes; it may not be kept after the return."""

    @abstractmethod
    def _finish(self) -> ObjectInfo:
        """Publish the object, whole and durable."""

    @abstractmethod
    def _abort(self) -> None:
        """Remove what was written. Called once, and only if `_finish` was not called or failed."""

    def write(self, data: bytes | memoryview) -> None:
        """Append all of `data`."""
        self._require_open()
        self._state = "broken"
        self._append(memoryview(data).cast("B"))
        self._state = "open"

    def commit(self) -> ObjectInfo:
        """Publish the object under its key."""
        self._require_open()
        self._state = "broken"
        info = self._finish()
        self._state = "committed"
        return info

    def _require_open(self) -> None:
        if self._state == "broken":
            raise StoreError(f"writing {self._key} has failed before")
        if self._state != "open":
            raise ValueError(f"{self._key} was {self._state} already")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._state in {"committed", "aborted"}:
            return
        self._state = "aborted"
        try:
            self._abort()
        except BackupdError as error:
            if exc is None:
                raise
            exc.add_note(f"and what was written of {self._key} could not be removed: {error}")
