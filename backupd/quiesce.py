"""Holding services still, and letting them go again, whatever happens in between.

Every act is journaled before it is done: after a kill, `recover` lets go what the dead process held.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime

from msgspec import Struct

from backupd.errors import BackupdError, SourceError
from backupd.journal import Hold, HoldAct, Journal
from backupd.lock import service_lock
from backupd.runtime import Runtime
from backupd.services import Service, Services

HEALTHY_WITHIN_SECONDS = 300.0

_POLL_SECONDS = 0.1


class _Standing(Struct, frozen=True):
    service: Service
    how: Hold
    begun: float
    rank: int


class Held:
    """Services that stand still; `stopped` are those that ran before, and should again. `since`: when all did first.

    `release` may be called early and repeatedly; leaving `holding` calls it.
    """

    def __init__(self, runtime: Runtime, how: Hold) -> None:
        self._runtime = runtime
        self._journal = Journal(runtime.state)
        self._how = how
        self._standing: list[_Standing] = []
        self._downtime: dict[str, float] = {}
        self.stopped: list[Service] = []
        self.since: datetime | None = None

    @property
    def downtime_seconds(self) -> Mapping[str, float]:
        """How long each service stood, by its container's name. Those that still do are not in it."""
        return self._downtime

    def add(self, service: Service, how: Hold | None = None, rank: int | None = None) -> None:
        """Bring one more to a stand. One that is being restarted cannot be paused, and is stopped.

        Those of the highest rank go on first; without one, those that were added last.
        """
        how = "stop" if service.state == "restarting" else how or self._how
        if how == "stop" and service.removed_when_stopped:
            raise SourceError(
                f"container {service.name} would be removed if it were stopped (--rm)",
                hint="run it without --rm, or set `consistency: pause`",
            )
        rank = len(self._standing) if rank is None else rank
        # Before the act is journaled: a signal may come while it is.
        self._standing.append(_Standing(service, how, time.monotonic(), rank))
        act = HoldAct(service=service.id, name=service.name, how=how)
        self._journal.begin(act, self._runtime.clock.now())
        services = self._runtime.engine.services
        if how == "pause":
            services.pause(service)
        else:
            if service.state == "running":
                self.stopped.append(service)
            services.stop(service)

    def release(self) -> None:
        """Let all of them go, those that others depend on first; the first error comes when all have been tried."""
        failed: BackupdError | None = None
        interrupted: BaseException | None = None
        self._standing.sort(key=lambda standing: standing.rank)
        while self._standing:
            standing = self._standing.pop()
            try:
                self._let_go(standing, patient=interrupted is None)
            except BackupdError as exc:
                failed = failed or exc
            except BaseException as exc:  # a signal: nobody shall stand for ever because of it
                interrupted = interrupted or exc
                self._standing.append(standing)
                if exc is not interrupted:
                    raise
            self._downtime.setdefault(standing.service.name, time.monotonic() - standing.begun)
        if interrupted is not None:
            raise interrupted
        if failed is not None:
            raise SourceError(f"not all services go on: {failed}", hint="`backupd recover` tries again") from failed

    def _let_go(self, standing: _Standing, *, patient: bool) -> None:
        """Also wait until it is healthy, if others that stand depend on it."""
        services, service = self._runtime.engine.services, standing.service
        let_go(services, service, standing.how)
        self._downtime[service.name] = time.monotonic() - standing.begun
        # All that there are of the service, whose lock is held: the number of ours may have been lost to a signal.
        self._journal.end(
            [
                seen.number
                for seen in self._journal.open_acts()
                if isinstance(seen.act, HoldAct) and seen.act.service == service.id
            ]
        )
        if patient and standing.how == "stop" and any(_depends(other.service, service) for other in self._standing):
            wait_until_healthy(services, service)


@contextmanager
def holding(runtime: Runtime, services: Sequence[Service], how: Hold, stop: Collection[str] = ()) -> Iterator[Held]:
    """Stop or pause these services, dependants first, and let them go when the block ends, in the opposite order.

    Those whose ids are in `stop` are stopped in any case, and before the others are paused, since it takes longer. Only
    those that run are touched, so that what was down or paused before stays so. Waits for another backupd that holds
    one of them, and looks at them again then.
    """
    held = Held(runtime, how)
    with ExitStack() as stack:
        for service in sorted(services, key=lambda service: service.id):  # one order for all, or two could block
            if service.alive:
                stack.enter_context(service_lock(runtime.locks, service))
        now = [runtime.engine.services.inspect(service.id) for service in services if service.alive]
        stack.callback(held.release)
        ordered = dependants_first([seen for seen in now if seen and seen.state in {"running", "restarting"}])
        for rank, service in sorted(enumerate(ordered), key=lambda ranked: (ranked[1].id not in stop, ranked[0])):
            held.add(service, "stop" if service.id in stop else how, rank)
        held.since = runtime.clock.now()
        yield held


def let_go(services: Services, service: Service, how: Hold) -> None:
    """Undo a hold; one that somebody has removed meanwhile needs nothing."""
    if services.inspect(service.id) is None:
        return
    try:
        if how == "pause":
            services.unpause(service)
        else:
            services.start(service)
    except SourceError:
        if services.inspect(service.id) is not None:
            raise


def wait_until_healthy(services: Services, service: Service, within_seconds: float = HEALTHY_WITHIN_SECONDS) -> None:
    """Wait until its health check passes, or until it runs where it has none; SourceError if it does not in time."""
    deadline = time.monotonic() + within_seconds
    while True:
        health = services.health(service)
        if health in {"healthy", "running"}:
            return
        if health in {"gone", "unhealthy"} or time.monotonic() > deadline:
            raise SourceError(f"container {service.name} is {'not running' if health == 'gone' else health}")
        time.sleep(_POLL_SECONDS)


def dependants_first(services: Sequence[Service]) -> list[Service]:
    """In an order in which each comes before those that it depends on (Compose's `depends_on`), else as given.

    A circle, which Compose refuses, is broken anywhere.
    """
    ordered: list[Service] = []
    seen: set[str] = set()

    def visit(service: Service) -> None:
        if service.id in seen:
            return
        seen.add(service.id)
        for other in services:
            if _depends(other, service):
                visit(other)
        ordered.append(service)

    for service in services:
        visit(service)
    return ordered


def _depends(service: Service, other: Service) -> bool:
    return bool(other.service) and service.project == other.project and other.service in service.depends_on
