"""Who is told what: events go to targets, through the outbox."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from msgspec import Struct, field

from backupd.errors import DeliveryFailed
from backupd.history import Run, RunKind
from backupd.notify.events import Event, EventName, of_run
from backupd.notify.outbox import Outbox
from backupd.notify.problems import Problems
from backupd.notify.templates import Texts


class Receiver(Protocol):
    """Delivers one message; DeliveryFailed if it can't. Called from one thread."""

    def send(self, event: EventName, title: str, body: str) -> None: ...  # noqa: D102


class Target(Struct, frozen=True):
    """A receiver, and what it wants: `plans` and `kinds` empty: all of them."""

    name: str
    receiver: Receiver
    on: frozenset[EventName]
    plans: frozenset[str] = frozenset()
    kinds: frozenset[RunKind] = frozenset()

    def wants(self, event: Event, routing: Routing) -> bool:
        """Whether it is told. A recovery is for those who were told of what it ends."""
        if self.plans and event.plan not in self.plans:
            return False
        if self.kinds and event.run is not None and event.run.kind not in self.kinds:
            return False
        on = routing.plans.get(event.plan or "", self.on)
        return event.name in on and (event.ended is None or event.ended in on)


class Routing(Struct, frozen=True):
    """`plans` has, by plan, what is told instead of what targets want; `manual`: whether runs by hand are told, too."""

    plans: Mapping[str, frozenset[EventName]] = field(default_factory=dict)
    manual: bool = False


Report = Callable[[str, Event, DeliveryFailed | None], None]


class Notifier:
    """Watches runs and tells targets. `hide` takes secrets out; `report` hears of every delivery, with its target.

    A run by hand that is not told leaves what is remembered as it is: the next run by schedule tells of the recovery.
    """

    def __init__(
        self,
        targets: Sequence[Target],
        routing: Routing,
        texts: Texts,
        problems: Problems,
        outbox: Outbox,
        ways: tuple[Callable[[str], str], Report],
    ) -> None:
        self._targets = targets
        self._routing = routing
        self._texts = texts
        self._problems = problems
        self._outbox = outbox
        self._hide, self._report = ways

    def began(self, run: Run) -> None:
        """Nobody wants to know."""

    def ended(self, run: Run) -> None:
        """Tell of the run. SourceError if what is remembered can't be written; the run is told all the same."""
        if run.early or (run.trigger == "manual" and not self._routing.manual):
            return
        ended: EventName | None = None
        try:
            ended = self._problems.note(run)
        finally:
            recovery = of_run(run, ended) if ended is not None else None
            for target in self._targets:
                self._tell_of_run(target, of_run(run), recovery)

    def tell(self, event: Event) -> None:
        """Send an event to everybody who wants it."""
        for target in self._targets:
            if target.wants(event, self._routing):
                self._send(target, event)

    def _tell_of_run(self, target: Target, event: Event, recovery: Event | None) -> None:
        """A recovery stands for the success that it is, where it is wanted."""
        recovered = recovery is not None and target.wants(recovery, self._routing)
        if recovery is not None and recovered:
            self._send(target, recovery)
        if target.wants(event, self._routing) and not (recovered and event.name == "success"):
            self._send(target, event)

    def _send(self, target: Target, event: Event) -> None:
        title, body = (self._hide(text) for text in self._texts.render(event))
        self._outbox.put(
            f"target {target.name}",
            f"notification to {target.name}: {event.summary}",
            lambda: target.receiver.send(event.name, title, body),
            lambda error: self._report(target.name, event, error),
        )
