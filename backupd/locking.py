"""What some stores can do besides: lock their objects for a time, and keep what was deleted as old versions.

Ask with `locks_of` and `versions_of`; what they return passes the part of `tests/contract/test_stores.py` on it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Protocol, runtime_checkable

from msgspec import Struct

from backupd.model import LockPolicy
from backupd.ports import Store


class Locks(Protocol):
    """Locks on single objects: until the given moment nobody can remove or change what is stored. Thread-safe."""

    policy: LockPolicy | None
    """How new objects are locked; None: as the store itself does by default, if it does."""

    def until(self, key: str) -> datetime | None:
        """Until when the object is locked, as far as these credentials may know; None: it is not, or no longer.

        ObjectNotFound if there is none.
        """
        ...

    def extend(self, key: str, now: datetime) -> bool:
        """Lock it by the policy from `now` on, if that is due (`LockPolicy.is_due`); whether it was.

        Idempotent, and never shortens. ObjectNotFound; StoreDenied or StoreError if the store refuses.
        """
        ...


class OldVersions(Struct, frozen=True):
    """What a store still holds of deleted objects: how many and their bytes; `purged` were removed for good just now.

    `locked` are those that a lock kept from that, with the moment at which it ends (None: another refusal).
    """

    count: int
    bytes: int
    purged_count: int = 0
    purged_bytes: int = 0
    locked: tuple[tuple[str, datetime | None], ...] = ()


class Versions(Protocol):
    """Deleted objects that are still there. Thread-safe."""

    purges: bool
    """Whether `tidy` removes anything."""

    def tidy(self, before: datetime) -> OldVersions:
        """Remove for good what was deleted before that moment, if the store is to do so; says what remains.

        One whose object is there again, or was written over by somebody, is not touched.
        """
        ...


@runtime_checkable
class _Locking(Protocol):
    def locks(self) -> Locks | None: ...


@runtime_checkable
class _Versioned(Protocol):
    def versions(self) -> Versions | None: ...


def locks_of(store: Store) -> Locks | None:
    """The locks of a store; None where objects are never locked. May ask the store what it can do."""
    return store.locks() if isinstance(store, _Locking) else None


def versions_of(store: Store) -> Versions | None:
    """The old versions of a store; None where what is deleted is gone. May ask the store what it can do."""
    return store.versions() if isinstance(store, _Versioned) else None
