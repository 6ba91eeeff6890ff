"""Taking leases of a store, and taking away those whose holders are gone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path

from msgspec import Struct

from backupd.errors import LockedError, ObjectExists, StoreDenied, StoreError
from backupd.lease.document import DURATION, Document, Holder, Kind, Standing, standing
from backupd.lease.lease import Lease
from backupd.mark import Marks
from backupd.ports import Clock, Progress, Store
from backupd.repository import layout

_POLL_SECONDS = 2.0


class Leases(Struct, frozen=True):
    """The leases of one store.

    A shared lease tolerates shared ones, an exclusive one none. `directory` is where this machine marks its own;
    `wait` is how long to wait for others before LockedError.
    """

    store: Store
    clock: Clock
    new_id: Callable[[], str]
    holder: Holder
    directory: Path
    progress: Progress
    wait: timedelta = timedelta()

    @contextmanager
    def shared(self, operation: str) -> Iterator[Lease]:
        """Hold a lease to write with; LockedError while the store is being pruned. `operation` is for people."""
        yield from self._held("shared", operation)

    @contextmanager
    def exclusive(self, operation: str) -> Iterator[Lease]:
        """Hold a lease to delete with; LockedError while anybody writes or prunes. None but this is then left.

        StoreDenied where the leases of those who are gone cannot be deleted.
        """
        yield from self._held("exclusive", operation)

    def release_dead(self) -> Sequence[str]:
        """Take away what killed processes of this machine left, says what."""
        marks = Marks(self.directory)
        dead = [name for name in marks.names() if marks.is_dead(name)]
        gone = [lease for lease in standing(self.store) if lease.id in dead]
        for lease in gone:
            self._take_away(lease)
        for name in dead:  # whose lease was never written, or was taken away by another machine
            if marks.read(name) in (b"", self.store.name.encode()):
                marks.forget(name)
        return [str(lease) for lease in gone]

    def _held(self, kind: Kind, operation: str) -> Iterator[Lease]:
        lease = Lease(self.store, self.clock, self.new_id(), self._document(kind, operation))
        mark = Marks(self.directory).make(lease.id)
        try:
            mark.write(self.store.name.encode())
            self._acquire(lease, kind)
            try:
                lease.keep_alive()
                yield lease
            finally:
                lease.release()
        finally:
            mark.close(keep=not lease.gone)

    def _acquire(self, lease: Lease, kind: Kind) -> None:
        begun = self.clock.now()
        said = False
        while blockers := self._try(lease, kind):
            message = f"store {self.store.name} is in use: {blockers[0]}"
            if self.clock.now() - begun >= self.wait:
                raise LockedError(
                    message, hint="wait until it is done; if it was killed on this machine, `backupd recover` lets go"
                )
            if not said:
                self.progress.note(f"waiting: {message}")
                said = True
            time.sleep(_POLL_SECONDS)

    def _try(self, lease: Lease, kind: Kind) -> Sequence[Standing]:
        """Write the lease, then look who else is there; what speaks against it, with the lease withdrawn, if any.

        Everybody first writes and then looks, so of two who come at the same time at least one sees the other.
        """
        try:
            lease.write()
            tolerated: set[str] = set()
            while True:
                found = standing(self.store)
                now = self._store_now(lease, found)
                others = [
                    other
                    for other in found
                    if other.id not in tolerated | {lease.id} and (kind == "exclusive" or other.exclusive)
                ]
                if living := [other for other in others if not self._is_over(other, now)]:
                    lease.release()
                    return living
                if not others:
                    return ()
                for other in others:
                    try:
                        self._take_away(other)
                    except StoreDenied:
                        # Its holder, were he to wake up, would notice that it has run out: see Lease.
                        if kind == "exclusive":
                            raise
                        tolerated.add(other.id)
        except BaseException:
            lease.release()
            raise

    def _store_now(self, lease: Lease, found: Sequence[Standing]) -> datetime | None:
        own = next((listed for listed in found if listed.id == lease.id), None)
        if own is None:
            lease.confirm()  # LeaseLost: this process stood still between writing it and looking
            raise StoreError(f"store {self.store.name} does not list what was just written to it")
        return own.modified

    def _is_over(self, lease: Standing, store_now: datetime | None) -> bool:
        return Marks(self.directory).is_dead(lease.id) or lease.expired(store_now, self.clock.now())

    def _take_away(self, lease: Standing) -> None:
        """First the fence: a holder who wakes up finds the key taken that his manifest was to have."""
        if lease.document is None or not lease.exclusive:
            with suppress(ObjectExists):  # it was committed
                self.store.put(layout.snapshot(lease.id), layout.WITHDRAWN)
        for key in lease.keys:
            self.store.delete(key)
        Marks(self.directory).forget(lease.id)

    def _document(self, kind: Kind, operation: str) -> Document:
        now = self.clock.now()
        return Document(
            kind=kind,
            operation=operation,
            host=self.holder.host,
            program=self.holder.program,
            process=self.holder.process,
            begun=now,
            until=now + DURATION,
            seconds=int(DURATION.total_seconds()),
        )
