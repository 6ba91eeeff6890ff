"""Which orders are carried out, which wait and which are dropped. Pure; not thread-safe."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from backupd.daemon.orders import Order


class Waits(Struct, frozen=True):
    """The order waits for that."""

    why: str


class Dropped(Struct, frozen=True):
    """The order is not carried out, because of that."""

    why: str


class Queue:
    """At most `parallel` orders at a time, in the order in which they came, but for those in whose way one is.

    An order that waits keeps what it wants from those behind it, so that none waits for ever.
    """

    def __init__(self, parallel: int) -> None:
        self.parallel = parallel
        self.running: list[Order] = []
        self.waiting: list[Order] = []

    def offer(self, order: Order) -> Waits | Dropped | None:
        """Take an order in; None: it is among those that `take` gives out next."""
        if twin := next((other for other in self.waiting if str(other) == str(order)), None):
            return Dropped(f"one that was due at {twin.since:%H:%M:%S} UTC still waits")
        obstacle = self.obstacle(order, [*self.running, *self.waiting])
        if obstacle and order.overlap == "skip":
            return Dropped(obstacle)
        self.waiting.append(order)
        if obstacle:
            return Waits(obstacle)
        under_way = len(self.running)
        are = "run is" if under_way == 1 else "runs are"
        return Waits(f"{under_way} {are} under way") if under_way >= self.parallel else None

    def take(self) -> list[Order]:
        """The orders that are to be carried out from now on."""
        taken: list[Order] = []
        passed: list[Order] = []
        for order in self.waiting:
            free = len(self.running) < self.parallel and not self.obstacle(order, [*self.running, *passed])
            if free:
                taken.append(order)
                self.running.append(order)
            else:
                passed.append(order)
        self.waiting = passed
        return taken

    def done(self, order: Order) -> None:
        """It has been carried out, well or not."""
        self.running.remove(order)

    def clear(self) -> list[Order]:
        """Drop all that wait; returns them."""
        dropped, self.waiting = self.waiting, []
        return dropped

    def in_line(self) -> list[tuple[Order, list[Order]]]:
        """The orders that wait, each with those that go before it."""
        return [(order, [*self.running, *self.waiting[:place]]) for place, order in enumerate(self.waiting)]

    def obstacle(self, order: Order, others: Sequence[Order]) -> str | None:
        """Who of the others is in the way of an order, in words."""
        for other in others:
            if what := order.in_the_way(other):
                state = "is under way" if other in self.running else "waits"
                return f"the {other} {state}" if what == str(order) else f"the {other}, which {state}, has the {what}"
        return None
