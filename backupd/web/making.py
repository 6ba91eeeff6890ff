"""Settings into what is served, and into all who watch the daemon's runs under one configuration."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from loguru import logger

from backupd import __version__
from backupd.errors import SourceError
from backupd.history import History
from backupd.observe import make_observers
from backupd.ports import Clock
from backupd.runs import Watcher
from backupd.security import no_identities
from backupd.settings import Settings
from backupd.status import StatusSource
from backupd.web.counts import RunCounter
from backupd.web.guard import LOOPBACK_NAMES
from backupd.web.server import WebServer
from backupd.web.state import PlanFacts, Sources
from backupd.web.storeview import StoreView
from backupd.wiring import make_security, make_store

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from backupd.notify.alerts import Raised


class Watched:
    """For one configuration: `watchers` for the daemon's recorder, `services` that are entered while it holds."""

    def __init__(self, settings: Settings, clock: Clock, warn: Callable[[str], None]) -> None:
        self._settings = settings
        self._history = History(Path(settings.state_dir))
        self._counter = RunCounter(list(settings.plans))
        self._view = StoreView(
            list(settings.stores),
            lambda name: make_store(settings, name),
            lambda: make_security(settings, no_identities, logger.debug),
            clock,
            settings.web.refresh,
        )
        self._observers = make_observers(settings, self._history, clock, warn, self._view.newest)
        self.watchers: Sequence[Watcher] = (*self._observers.watchers, self._view, self._counter)

    def services(self, daemon: StatusSource) -> list[AbstractContextManager[object]]:
        """What goes on between runs."""
        services: list[AbstractContextManager[object]] = [self._looking(), self._observers]
        web = self._settings.web
        if web.enabled:
            services.append(WebServer(lambda: self.app(daemon), web.host, web.port))
        return services

    def app(self, daemon: StatusSource) -> ASGIApp:
        """What is served."""
        from backupd.web.app import make_app  # noqa: PLC0415  (FastAPI takes half a second)

        web = self._settings.web
        token = web.token.get_secret_value() if web.token else None
        return make_app(self.sources(daemon), self._counter, token, served_hosts(self._settings), log_access)

    def sources(self, daemon: StatusSource) -> Sources:
        """All that is served."""
        return Sources(
            plans=plan_facts(self._settings),
            history=self._history,
            daemon=daemon,
            stores=self._view.seen,
            alerts=self._alerts,
            spaces=lambda: self._observers.look.spaces,
            deliveries=self._observers.deliveries.by_outcome,
            version=__version__,
        )

    def _alerts(self) -> dict[str, Raised]:
        try:
            return dict(self._observers.watchdog.raised())
        except SourceError:  # the watchdog itself warns of that
            return {}

    @contextmanager
    def _looking(self) -> Iterator[None]:
        self._view.start()
        try:
            yield
        finally:
            self._view.stop()


def plan_facts(settings: Settings) -> list[PlanFacts]:
    """The plans as configured."""
    return [
        PlanFacts(name, plan.volumes, plan.stores, plan.schedule, plan.timezone or "UTC", plan.max_age)
        for name, plan in settings.plans.items()
    ]


def served_hosts(settings: Settings) -> frozenset[str] | None:
    """The Host headers that are answered; None: any. On a loopback address, only names of that."""
    web = settings.web
    if web.allowed_hosts:
        return frozenset(web.allowed_hosts) | LOOPBACK_NAMES
    try:
        loopback = ipaddress.ip_address(web.host).is_loopback
    except ValueError:
        loopback = web.host == "localhost"
    return LOOPBACK_NAMES | {web.host} if loopback else None


def log_access(method: str, path: str, status: int, seconds: float, client: str) -> None:
    """What went well is for those who want to hear everything: scrapes and probes come every few seconds."""
    logger.log(
        "DEBUG" if status < 400 else "INFO", "{} {} {} {:.0f} ms {}", method, path, status, seconds * 1e3, client
    )
