"""Settings into those who watch runs: notifications, pings, alerts, and the count of what was delivered."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
from msgspec import Struct, field

from backupd import __version__
from backupd.errors import ConfigError, DeliveryFailed, SourceError
from backupd.history import History, Run
from backupd.log import Redactor
from backupd.notify.conditions import Condition, Limits, SizeLimits, Space, judge
from backupd.notify.events import Event
from backupd.notify.facts import gather
from backupd.notify.notifier import Notifier, Routing, Target
from backupd.notify.outbox import Outbox
from backupd.notify.ping import Pinger
from backupd.notify.problems import Problems
from backupd.notify.target import AppriseReceiver
from backupd.notify.templates import Texts
from backupd.notify.watchdog import Watchdog
from backupd.ports import Clock
from backupd.runs import Watcher
from backupd.settings import LocalStoreSettings, Settings
from backupd.wiring import secret_values


class Deliveries(Struct):
    """Told of every delivery: counts it, says what failed, and keeps that with the run that it was about."""

    history: History
    warn: Callable[[str], None]
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def notified(self, target: str, event: Event, error: DeliveryFailed | None) -> None:
        """A notification to a target."""
        self._note(f"target {target}", event.run, f"notification to {target} failed", error)

    def pinged(self, plan: str, run: Run, error: DeliveryFailed | None) -> None:
        """A ping of a plan."""
        self._note(f"ping {plan}", run, "ping failed", error)

    def by_outcome(self) -> Mapping[tuple[str, str], int]:
        """How many, by receiver and by `delivered` or `failed`, since the start."""
        with self._lock:
            return dict(self.counts)

    def _note(self, receiver: str, run: Run | None, what: str, error: DeliveryFailed | None) -> None:
        with self._lock:
            self.counts[receiver, "failed" if error else "delivered"] += 1
            if error is None:
                return
            self.warn(f"{what}: {error}")
            if run is not None and run.outcome != "running":  # what its recorder writes next would lack the note
                self._keep(run, f"{what}: {error}")

    def _keep(self, run: Run, note: str) -> None:
        try:
            for found in self.history.find(run.id):
                self.history.put(msgspec.structs.replace(found, notes=[*found.notes, note]))
        except SourceError as exc:
            self.warn(str(exc))


class Observers(Struct, frozen=True):
    """Those who watch runs, for a recorder; as a context it looks for alerts, too."""

    notifier: Notifier
    watchers: Sequence[Watcher]
    watchdog: Watchdog
    look: Look
    outbox: Outbox
    deliveries: Deliveries
    flush_seconds: float
    warn: Callable[[str], None]

    def __enter__(self) -> Self:
        """Look for alerts from now on."""
        self.watchdog.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Look no more, and wait for what is being delivered, `notifications.flush_within` at most."""
        self.watchdog.stop()
        self.flush()

    def flush(self) -> None:
        """Wait for what is being delivered; what is not delivered by then is said."""
        for what in self.outbox.flush(self.flush_seconds):
            self.warn(f"given up: {what}")


def make_observers(
    settings: Settings,
    history: History,
    clock: Clock,
    warn: Callable[[str], None],
    newest: Callable[[str], datetime | None] = lambda _plan: None,
) -> Observers:
    """For the daemon: a target whose URL is of no use is warned of, the rest works. `newest` as for `gather`."""
    outbox = Outbox(settings.notifications.attempts)
    deliveries = Deliveries(history, warn)
    state = Path(settings.state_dir)
    hide = Redactor(secret_values(settings))
    notifier = Notifier(
        make_targets(settings, hide, warn),
        Routing(
            {name: frozenset(plan.notify) for name, plan in settings.plans.items() if plan.notify is not None},
            manual=settings.notifications.manual,
        ),
        make_texts(settings),
        Problems(state),
        outbox,
        (hide, deliveries.notified),
    )
    look = Look(settings, history, newest)
    watchdog = Watchdog(
        state,
        clock,
        look,
        frozenset(settings.plans),
        (settings.alerts.check_every, settings.alerts.remind_every),
        (notifier.tell, warn),
    )
    pinger = _make_pinger(settings, outbox, hide, deliveries)
    flush = settings.notifications.flush_within.total_seconds()
    return Observers(notifier, (notifier, pinger, watchdog), watchdog, look, outbox, deliveries, flush, warn)


def make_targets(
    settings: Settings, hide: Callable[[str], str], warn: Callable[[str], None] | None = None
) -> list[Target]:
    """Those of `notifications.targets`. One that can't be used is a ConfigError, or left out with a warning."""
    timeout = settings.notifications.timeout.total_seconds()
    targets = []
    for name, target in settings.notifications.targets.items():
        try:
            receiver = AppriseReceiver(name, target.url.get_secret_value(), timeout, hide)
        except ConfigError as exc:
            if warn is None:
                raise
            warn(f"{exc}: nobody is notified there")
        else:
            on, plans, kinds = frozenset(target.events), frozenset(target.plans), frozenset(target.kinds)
            targets.append(Target(name, receiver, on, plans, kinds))
    return targets


def make_texts(settings: Settings) -> Texts:
    """The templates of notifications."""
    host = socket.gethostname()
    return Texts(settings.notifications.title, settings.notifications.body, settings.project or host, host)


def _make_pinger(settings: Settings, outbox: Outbox, hide: Callable[[str], str], deliveries: Deliveries) -> Pinger:
    return Pinger(
        {name: urls for name, plan in settings.plans.items() if (urls := plan.ping.urls()) is not None},
        outbox,
        settings.notifications.timeout.total_seconds(),
        hide,
        deliveries.pinged,
        f"backupd/{__version__}",
    )


def make_limits(settings: Settings) -> Limits:
    """What `alerts` says, with what plans and volumes say instead; a volume's word goes before a plan's."""
    alerts = settings.alerts
    names = {volume for plan in settings.plans.values() for volume in plan.volumes} | set(settings.volumes)
    return Limits(
        sizes={
            (plan, volume): _size_limits(settings, plan, volume) for plan in settings.plans for volume in sorted(names)
        },
        other_sizes=SizeLimits(_share(alerts.shrink), _share(alerts.grow)),
        compare_with=alerts.compare_with,
        smallest_bytes=alerts.size_at_least,
        ages={name: plan.max_age for name, plan in settings.plans.items() if plan.max_age is not None},
        free_bytes=alerts.free_bytes,
        free_share=alerts.free_percent / 100,
    )


def _size_limits(settings: Settings, plan: str, volume: str) -> SizeLimits:
    said = [settings.plans[plan].alerts]
    if volume in settings.volumes:
        said.insert(0, settings.volumes[volume].alerts)
    shrink = next((one.shrink for one in said if one.shrink is not None), settings.alerts.shrink)
    grow = next((one.grow for one in said if one.grow is not None), settings.alerts.grow)
    return SizeLimits(_share(shrink), _share(grow))


def _share(percentage: int) -> float | None:
    return percentage / 100 if percentage else None


def watched_places(settings: Settings) -> dict[str, Path]:
    """The file systems that may run full: of the state directory and of local stores."""
    stores = {
        f"store {name}": Path(store.path)
        for name, store in settings.stores.items()
        if isinstance(store, LocalStoreSettings)
    }
    return {"state directory": Path(settings.state_dir), **stores}


class Look:
    """How the watchdog finds out. `spaces` is the free space that was seen last: who asks does not wait for a disk."""

    def __init__(self, settings: Settings, history: History, newest: Callable[[str], datetime | None]) -> None:
        self._plans = list(settings.plans)
        self._history = history
        self._newest = newest
        self._limits = make_limits(settings)
        self._places = watched_places(settings)
        self.spaces: Mapping[str, Space | None] = {}

    def __call__(self, known: Mapping[str, datetime], now: datetime) -> list[Condition]:
        """All conditions."""
        compare_with = self._limits.compare_with
        facts = gather(self._history, self._plans, self._places, compare_with, known, self._newest)
        self.spaces = facts.space
        return judge(facts, self._limits, now)
