"""Deliveries in the background: a slow receiver holds up neither a run nor another receiver."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic

from msgspec import Struct, field

from backupd.errors import DeliveryFailed

_PAUSES = (2.0, 10.0, 30.0)
_MOST_WAITING = 200

Send = Callable[[], None]
Done = Callable[[DeliveryFailed | None], None]


class _Item(Struct):
    what: str
    send: Send
    done: Done


class _Lane(Struct):
    waiting: deque[_Item] = field(default_factory=deque)
    sending: _Item | None = None
    thread: threading.Thread | None = None


class Outbox:
    """One lane and one thread for each receiver, in order within a lane.

    Memory: at most 200 deliveries wait in a lane; beyond that the oldest is given up. A delivery is tried `attempts`
    times as long as DeliveryFailed says that it may work later, with pauses of 2, 10, 30 and 30 seconds. The threads
    are daemonic: a receiver that hangs does not keep the process from ending.
    """

    def __init__(self, attempts: int = 3, pauses: Sequence[float] = _PAUSES) -> None:
        self._attempts = attempts
        self._pauses = pauses
        self._changed = threading.Condition()
        self._lanes: dict[str, _Lane] = {}
        self._hurry = threading.Event()

    def put(self, lane: str, what: str, send: Send, done: Done) -> None:
        """Deliver later. `done` is called once, from another thread, with what went wrong in the end, if anything."""
        dropped: _Item | None = None
        with self._changed:
            place = self._lanes.setdefault(lane, _Lane())
            if len(place.waiting) >= _MOST_WAITING:
                dropped = place.waiting.popleft()
            place.waiting.append(_Item(what, send, done))
            if place.thread is None or not place.thread.is_alive():
                place.thread = threading.Thread(target=self._work, args=(place,), name=f"outbox {lane}", daemon=True)
                place.thread.start()
            self._changed.notify_all()
        if dropped is not None:
            dropped.done(DeliveryFailed("too many are waiting", again=False))

    def flush(self, seconds: float) -> list[str]:
        """Wait until all is delivered or given up, that long at most; returns what is not.

        From now on retries do not wait, and threads end once they have nothing to do.
        """
        end = monotonic() + seconds
        self._hurry.set()
        with self._changed:
            self._changed.notify_all()
            while (left := self._open()) and (rest := end - monotonic()) > 0:
                self._changed.wait(rest)
            return left

    def _open(self) -> list[str]:
        items = [item for lane in self._lanes.values() for item in (lane.sending, *lane.waiting) if item is not None]
        return [item.what for item in items]

    def _work(self, lane: _Lane) -> None:
        while True:
            with self._changed:
                while not lane.waiting:
                    if self._hurry.is_set():  # whoever puts more starts another thread
                        lane.thread = None
                        return
                    self._changed.wait()
                item = lane.sending = lane.waiting.popleft()
            try:
                item.done(self._deliver(item))
            finally:
                with self._changed:
                    lane.sending = None
                    self._changed.notify_all()

    def _deliver(self, item: _Item) -> DeliveryFailed | None:
        for attempt in range(1, self._attempts + 1):
            try:
                item.send()
            except DeliveryFailed as exc:
                if attempt == self._attempts or not exc.again:
                    return exc
                self._hurry.wait(self._pauses[min(attempt, len(self._pauses)) - 1])
            except Exception as exc:  # a receiver's mistake ends no lane; its words may hold a URL
                return DeliveryFailed(f"it failed ({type(exc).__name__}), which should not have happened", again=False)
            else:
                return None
        raise AssertionError("attempts is at least one")
