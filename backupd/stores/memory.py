"""A store in memory, for tests: the same rules as the real ones."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

from backupd.errors import IntegrityError, ObjectExists, ObjectNotFound, StoreDenied
from backupd.model import LockPolicy, ObjectInfo, StoreFacts
from backupd.ports import Clock
from backupd.stores.keys import check_key, check_range
from backupd.stores.writing import Writer


class MemoryStore:
    """Objects in a dictionary, gone with the process. `clock` says when they were modified (default: now).

    With `lock`, objects are locked by that policy, but those below `unlocked`, and deleting a locked one is denied.
    """

    def __init__(
        self, name: str, clock: Clock | None = None, lock: LockPolicy | None = None, unlocked: tuple[str, ...] = ()
    ) -> None:
        self.name = name
        self._clock = clock
        self._policy = lock
        self._unlocked = unlocked
        self._locked: dict[str, datetime] = {}
        self._objects: dict[str, tuple[bytes, datetime]] = {}
        self._lock = threading.Lock()

    def create(self, key: str, size_hint: int | None = None) -> Writer:  # noqa: ARG002  (nothing to choose)
        """Begin a streamed object, held whole in memory."""
        return _MemoryWriter(self, check_key(key))

    def put(self, key: str, data: bytes) -> ObjectInfo:
        """Write an object, only if the key is absent."""
        check_key(key)
        modified = self._now()
        with self._lock:
            if key in self._objects:
                raise ObjectExists(f"store {self.name}: {key} exists")
            self._objects[key] = (bytes(data), modified)
            if self._policy and not key.startswith(self._unlocked):
                self._locked[key] = self._policy.until(modified)
        return ObjectInfo(key, len(data), modified)

    def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """Exactly the bytes that were asked for."""
        check_range(offset, length)
        data, _ = self._find(key)
        if offset + (length or 0) > len(data):
            raise IntegrityError(f"store {self.name}: {key} ends at {len(data)}, before what was asked for")
        return data[offset:] if length is None else data[offset : offset + length]

    def stat(self, key: str) -> ObjectInfo:
        """Size and time of an object."""
        data, modified = self._find(key)
        return ObjectInfo(key, len(data), modified)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Objects in key order, as they were when the iteration began."""
        with self._lock:
            found = [ObjectInfo(key, len(data), modified) for key, (data, modified) in self._objects.items()]
        return iter(sorted((info for info in found if info.key.startswith(prefix)), key=lambda info: info.key))

    def delete(self, key: str) -> None:
        """Remove an object."""
        check_key(key)
        now = self._now()
        with self._lock:
            if key in self._objects and self._locked.get(key, now) > now:
                raise StoreDenied(f"store {self.name}: {key} is locked")
            self._objects.pop(key, None)
            self._locked.pop(key, None)

    def remove_stale_uploads(self, older_than: timedelta | None, now: datetime) -> Sequence[str]:  # noqa: ARG002
        """Nothing: an unfinished write is gone with its writer."""
        return ()

    def facts(self) -> StoreFacts:
        """What a dictionary under a lock can do."""
        return StoreFacts(conditional_create=True, details={"kind": "memory"})

    def locks(self) -> MemoryLocks | None:
        """Locks, if it was made with a policy for them."""
        return MemoryLocks(self, self._policy) if self._policy else None

    def close(self) -> None:
        """Nothing to let go of; the objects stay."""

    def _now(self) -> datetime:
        return self._clock.now() if self._clock else datetime.now(UTC)

    def _find(self, key: str) -> tuple[bytes, datetime]:
        check_key(key)
        with self._lock:
            if key not in self._objects:
                raise ObjectNotFound(f"store {self.name}: no {key}")
            return self._objects[key]


class MemoryLocks:
    """See `backupd.locking.Locks`."""

    def __init__(self, store: MemoryStore, policy: LockPolicy) -> None:
        self._store = store
        self.policy: LockPolicy | None = policy

    def until(self, key: str) -> datetime | None:
        """See Locks."""
        self._store.stat(key)
        until = self._store._locked.get(key)
        return until if until is not None and until > self._store._now() else None

    def extend(self, key: str, now: datetime) -> bool:
        """See Locks."""
        self._store.stat(key)
        assert self.policy is not None  # it was made with one
        if not self.policy.is_due(self._store._locked.get(key), now):
            return False
        self._store._locked[key] = self.policy.until(now)
        return True


class _MemoryWriter(Writer):
    def __init__(self, store: MemoryStore, key: str) -> None:
        super().__init__(key)
        self._store = store
        self._buffer = bytearray()

    def _append(self, data: memoryview) -> None:
        self._buffer += data

    def _finish(self) -> ObjectInfo:
        return self._store.put(self._key, bytes(self._buffer))

    def _abort(self) -> None:
        self._buffer.clear()
