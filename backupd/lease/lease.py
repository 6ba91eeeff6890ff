"""A lease that is held: renewed in the background, asked for before what cannot be undone, released at the end."""

from __future__ import annotations

import threading
import time
from datetime import datetime, timedelta

from msgspec.structs import replace

from backupd.errors import BackupdError, LeaseLost, ObjectNotFound, StoreDenied
from backupd.lease.document import DURATION, Document, encode
from backupd.model import ObjectInfo
from backupd.ports import Clock, Store
from backupd.repository import layout

_RENEWED_EVERY = DURATION / 3
_TRUSTED = DURATION / 2


class Lease:
    """One lease, whose `id` is also the id of the snapshot that its holder may commit. Thread-safe.

    Whoever takes a lease away deletes it before he acts, and writes nothing in its place. So a lease that is still in
    the store has held all the time, whatever the clocks say; that is how restic refreshes a lock that is overdue.
    """

    def __init__(self, store: Store, clock: Clock, lease_id: str, document: Document) -> None:
        self.id = lease_id
        self._store = store
        self._clock = clock
        self._document = document
        self._keys: list[str] = []
        self._number = -1
        self._lost = False
        self._written = (clock.now(), _uptime())
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def gone(self) -> bool:
        """Whether nothing of it is left in the store."""
        return not self._keys

    def write(self) -> None:
        """Put it into the store, for the first time or anew."""
        self._written = (self._clock.now(), _uptime())
        self._number += 1
        key = layout.lease(self.id, self._number)
        until = self._written[0] + timedelta(seconds=self._document.seconds)
        self._keys.append(key)
        self._store.put(key, encode(replace(self._document, until=until)))

    def store_time(self) -> datetime | None:
        """When it was last written, by the store's clock; None if that has none."""
        with self._lock:
            return self._required(self._keys[-1]).modified

    def keep_alive(self) -> None:
        """Renew it from now on, in a thread of its own, until it is released."""
        self._thread = threading.Thread(target=self._renew_often, name=f"lease-{self.id[:8]}", daemon=True)
        self._thread.start()

    def confirm(self) -> None:
        """LeaseLost unless the store still has it; renewed if it is about to run out."""
        with self._lock:
            if self._age() > _TRUSTED:
                self._renew()
            self._required(self._keys[-1])

    def require(self) -> None:
        """The same, but without asking the store as long as nobody can have taken the lease away."""
        if self._lost or self._age() > _TRUSTED:
            self.confirm()

    def renew(self) -> None:
        """Write it anew and remove the old one; LeaseLost if that is gone, or was overdue and is exclusive."""
        with self._lock:
            self._renew()

    def release(self) -> None:
        """Remove it from the store. What cannot be removed now runs out by itself.

        Where deleting is denied a last object says that it is released.
        """
        self._done.set()
        if self._thread is not None:
            self._thread.join()
        try:
            self._remove(self._keys)
        except StoreDenied:
            self._release_by_word()
        except BackupdError:
            return

    def _release_by_word(self) -> None:
        held, self._document = self._document, replace(self._document, released=True)
        try:
            self.write()
        except BackupdError:
            return
        finally:
            self._document = held
        self._keys = []

    def _renew(self) -> None:
        if self._lost:
            raise self._loss()
        old = self._keys[-1]
        self.write()
        new = self._keys[-1]
        # In this order: whoever takes the old one away looks for a new one afterwards. One of the two sees the other.
        then, now = self._required(old).modified, self._required(new).modified
        lapsed = then is not None and now is not None and now - then > DURATION
        if lapsed and self._document.kind == "exclusive":
            self._lost = True
            raise self._loss()
        try:
            self._remove([key for key in self._keys if key != new])
        except StoreDenied:
            self._keys = [new]

    def _required(self, key: str) -> ObjectInfo:
        """What the store has under the key; LeaseLost if that is nothing."""
        if self._lost:
            raise self._loss()
        try:
            return self._store.stat(key)
        except ObjectNotFound as exc:
            self._lost = True
            raise self._loss() from exc

    def _remove(self, keys: list[str]) -> None:
        for key in list(keys):
            self._store.delete(key)
            self._keys.remove(key)

    def _age(self) -> timedelta:
        """Since it was written: by two clocks, as either may have stood still or been set back."""
        written, uptime = self._written
        return max(self._clock.now() - written, timedelta(seconds=_uptime() - uptime))

    def _loss(self) -> LeaseLost:
        return LeaseLost(
            f"store {self._store.name}: this process stood still for so long that its lease was taken away"
            f" ({self._document.operation})"
        )

    def _renew_often(self) -> None:
        while not self._done.wait(_RENEWED_EVERY.total_seconds()):
            try:
                self.renew()
            except LeaseLost:
                return  # the holder learns of it from `confirm`
            except BackupdError:
                continue  # a store that does not answer now may do so at the next time


def _uptime() -> float:
    """Seconds since the machine started, those included in which it slept."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
