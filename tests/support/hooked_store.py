"""A store that lets somebody else act before its n-th operation, as if this process had been slow just then."""

from __future__ import annotations

from collections.abc import Callable

from backupd.ports import Store
from tests.support.faulty_store import FaultyStore


class HookedStore(FaultyStore):
    """Runs `hook` once, before operation `at`. What the hook does, it does to the store behind.

    Deletes count only if `deletes`.
    """

    def __init__(self, store: Store, at: int, hook: Callable[[], None], *, deletes: bool = True) -> None:
        super().__init__(store)
        self._deletes = deletes
        self._hook_at = at
        self._hook = hook
        self.hooked = False

    def _step(self, *, changes: bool = True) -> BaseException | None:
        late = super()._step(changes=changes)
        with self._lock:
            now = self.count >= self._hook_at and not self.hooked
            self.hooked = self.hooked or now
        if now:
            self._hook()
        return late

    def delete(self, key: str) -> None:
        if self._deletes:
            super().delete(key)
        else:
            self.store.delete(key)
