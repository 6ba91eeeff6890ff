"""A store that fails when it is told to, at any of its operations."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import Self

from backupd.model import ObjectInfo, StoreFacts
from backupd.ports import ObjectWriter, Store


class Crash(BaseException):
    """Stands for a process that is gone: nothing but a test catches it."""


class FaultyStore:
    """Counts operations of the store behind it and fails at the n-th. `after`: only once it was carried out."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.name = store.name
        self.mend()

    def mend(self) -> None:
        self.count = 0
        self._at = 0
        self._error: BaseException | None = None
        self._broken: BaseException | None = None
        self._lock = threading.Lock()
        self.after = False
        self.stays_broken = False
        self.failed = False

    def fail_at(self, number: int, error: BaseException) -> None:
        self._at, self._error = number, error

    def break_down(self, error: BaseException) -> None:
        self._broken = error

    def _step(self, *, changes: bool = True) -> BaseException | None:
        with self._lock:
            self.count += 1
            if self._broken is not None:
                raise self._broken
            if self.count != self._at or self._error is None:
                return None
            self.failed = True
            if self.stays_broken:
                self._broken = self._error
            if not self.after or not changes:
                raise self._error
            return self._error

    def create(self, key: str, size_hint: int | None = None) -> _Writer:
        late = self._step()
        writer = _Writer(self, self.store.create(key, size_hint))
        if late is not None:
            with writer:
                raise late
        return writer

    def put(self, key: str, data: bytes) -> ObjectInfo:
        late = self._step()
        info = self.store.put(key, data)
        if late is not None:
            raise late
        return info

    def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        self._step(changes=False)
        return self.store.read(key, offset, length)

    def stat(self, key: str) -> ObjectInfo:
        self._step(changes=False)
        return self.store.stat(key)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        self._step(changes=False)
        return self.store.list(prefix)

    def delete(self, key: str) -> None:
        late = self._step()
        self.store.delete(key)
        if late is not None:
            raise late

    def remove_stale_uploads(self, older_than: timedelta | None, now: datetime) -> Sequence[str]:
        self._step(changes=False)
        return self.store.remove_stale_uploads(older_than, now)

    def facts(self) -> StoreFacts:
        return self.store.facts()

    def close(self) -> None:
        self.store.close()


class _Writer:
    def __init__(self, faulty: FaultyStore, writer: ObjectWriter) -> None:
        self._faulty = faulty
        self._writer = writer

    def __enter__(self) -> Self:
        self._writer.__enter__()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._writer.__exit__(exc_type, exc, tb)

    def write(self, data: bytes | memoryview) -> None:
        late = self._faulty._step()
        self._writer.write(data)
        if late is not None:
            raise late

    def commit(self) -> ObjectInfo:
        late = self._faulty._step()
        info = self._writer.commit()
        if late is not None:
            raise late
        return info
