"""The services around a restore: stopped, started again, waited for, and how long they were away."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from types import TracebackType
from typing import Self

from backupd.errors import BackupdError, ServiceUnhealthy
from backupd.journal import HoldAct, Journal
from backupd.lock import service_lock
from backupd.restore.around import Around
from backupd.restore.watch import Watch, last_words
from backupd.runtime import Runtime
from backupd.services import Service

_POLL_SECONDS = 0.1
_AT_ONCE = 8


class Standstill:
    """Stops services and brings them back. Within its block it has the right to, which other processes wait for.

    Order of calls: stop, start, and again as often as need be; then `end`, after which nothing is owed to them. They
    stay in the journal from before the first stop until then, so that `recover` starts them after a kill. Leaving the
    block does not start anything: what goes first depends on what became of the volumes.
    """

    def __init__(self, runtime: Runtime, around: Around, within_seconds: float) -> None:
        self._runtime = runtime
        self._services = runtime.engine.services
        self._journal = Journal(runtime.state)
        self._around = around
        self._within = within_seconds
        self._acts: list[int] = []
        self._stopped_at: dict[str, float] = {}
        self._up_at: dict[str, float] = {}
        self._locks = ExitStack()

    @property
    def _returning(self) -> list[Service]:
        """Those that can be started again, what others depend on first."""
        return [service for service in reversed(self._around.stopped) if not service.removed_when_stopped]

    @property
    def away_seconds(self) -> Mapping[str, float]:
        """How long each was away, by its container's name, from its first stop until it was well again."""
        return {
            service.name: self._up_at[service.id] - self._stopped_at[service.id]
            for service in reversed(self._returning)
            if service.id in self._up_at and service.id in self._stopped_at
        }

    @property
    def downtime_seconds(self) -> float:
        """From the first stop to the last that was well again; 0 if nothing was stopped."""
        if not self._up_at or not self._stopped_at:
            return 0.0
        return max(self._up_at.values()) - min(self._stopped_at.values())

    def stop(self) -> None:
        """Stop all of them, dependants first, each with its own signal and timeout."""
        if not self._acts:
            now = self._runtime.clock.now()
            self._acts = [
                self._journal.begin(HoldAct(service=s.id, name=s.name, how="stop", paused=s.state == "paused"), now)
                for s in self._around.stopped
                if not s.removed_when_stopped
            ]
        self._up_at.clear()
        if self._around.stopped:
            names = ", ".join(service.name for service in self._around.stopped)
            self._runtime.progress.note(f"stopping {names}")
        for layer in self._around.layers():
            _all_at_once(self._stop, layer)

    def _stop(self, service: Service) -> None:
        found = self._services.inspect(service.id)
        if found is None:
            return
        self._stopped_at.setdefault(service.id, time.monotonic())
        if found.state == "paused":  # frozen, it could not heed the signal
            self._services.unpause(service)
        self._services.stop(service)

    def start(self, *, give_up: bool) -> None:
        """Start them, each when those that it depends on are well, and wait until all are; pause what was paused.

        ServiceUnhealthy, after what the service last said was noted, if one of them is not well in its time, or what
        the engine refused: at once with `give_up`, since all will be stopped again; else when all have been tried.
        """
        waiting, watches = self._returning, dict[str, Watch]()
        errors: list[BackupdError] = []
        if waiting:
            self._runtime.progress.note(f"starting {', '.join(service.name for service in waiting)}")
        while waiting or not all(watch.well for watch in watches.values()):
            for service in [service for service in waiting if self._may_start(service, waiting, watches)]:
                waiting.remove(service)
                self._try(partial(self._begin, service, watches), errors, give_up=give_up)
            for id_, watch in list(watches.items()):
                if not self._try(partial(self._look, watch), errors, give_up=give_up):
                    del watches[id_]  # what depends on it is started all the same
            time.sleep(_POLL_SECONDS if watches else 0)
        for service in self._returning:
            if service.state == "paused":
                self._pause(service)
        if errors:
            raise errors[0]

    def _pause(self, service: Service) -> None:
        """No reason to give up a restore that went well."""
        try:
            if self._services.health(service) != "gone":
                self._services.pause(service)
        except BackupdError as exc:
            self._runtime.progress.note(f"{service.name} was paused before, and runs now: {exc}")

    def _try(self, act: Callable[[], None], errors: list[BackupdError], *, give_up: bool) -> bool:
        try:
            act()
        except BackupdError as exc:
            if give_up:
                raise
            errors.append(exc)
            return False
        return True

    def _begin(self, service: Service, watches: dict[str, Watch]) -> None:
        found = self._services.inspect(service.id)
        if found is not None and found.state != "paused":  # paused still: its stop never came
            self._services.start(service)
            watches[service.id] = Watch(self._services, service, self._within)

    def _may_start(self, service: Service, waiting: Sequence[Service], watches: Mapping[str, Watch]) -> bool:
        needs = (self._around.needs or {}).get(service.id, frozenset())
        if all(watch.usable for id_, watch in watches.items() if id_ in needs):
            waits_for = [other for other in waiting if other.id in needs]
            circle = all(watch.well for watch in watches.values()) and service is waiting[0]
            return not waits_for or circle
        return False

    def _look(self, watch: Watch) -> None:
        try:
            watch.look()
        except ServiceUnhealthy as exc:
            for line in self._last_words(watch.service):
                self._runtime.progress.note(f"  {watch.service.name} | {line}")
            raise exc from None
        if watch.up_at is not None:
            self._up_at[watch.service.id] = watch.up_at

    def _last_words(self, service: Service) -> Sequence[str]:
        try:
            return last_words(self._services, service)
        except BackupdError as exc:
            return [f"its log cannot be read: {exc}"]

    def end(self) -> None:
        """They are as they were, or no further trying would help."""
        self._journal.end(self._acts)
        self._acts = []

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            # In an order that all processes share, so that no two wait for each other.
            for service in sorted(self._around.stopped, key=lambda service: service.id):
                stack.enter_context(service_lock(self._runtime.locks, service))
            self._locks = stack.pop_all()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._locks.close()


def _all_at_once(act: Callable[[Service], None], services: Sequence[Service]) -> None:
    """The first error comes when all have been tried."""
    if len(services) == 1:
        act(services[0])
        return
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for done in [pool.submit(act, service) for service in services]:
            done.result()
