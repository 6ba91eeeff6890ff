"""Carries out orders, each in a thread that waits for the process that does it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Lock, Thread

from loguru import logger
from msgspec import Struct

from backupd.daemon.messages import Task, failure
from backupd.daemon.orders import Order
from backupd.daemon.queue import Dropped, Queue
from backupd.daemon.worker import Workers
from backupd.errors import BackupdError, Interrupted, PartialFailure, RunSkipped
from backupd.history import Run
from backupd.log import bound_run
from backupd.ports import Clock
from backupd.runs import Draft, Recorder
from backupd.status import Activity
from backupd.words import duration, size


class Handed(Struct, frozen=True):
    """What goes on to every run besides its configuration: see Task."""

    identity: Path | None = None
    level: str | None = None


class Dispatcher:
    """Thread-safe. `wake` is called when a run has begun or ended.

    What goes wrong with a run is in the log and in the history, and nowhere else.
    """

    def __init__(
        self,
        queue: Queue,
        workers: Workers,
        recorder: Recorder,
        clock: Clock,
        wake: Callable[[], None],
        handed: Handed = Handed(),
    ) -> None:
        self.recorder = recorder
        self._queue = queue
        self._workers = workers
        self._clock = clock
        self._wake = wake
        self._handed = handed
        self._lock = Lock()
        self._begun: dict[Order, Run | None] = {}
        self._stopping = False

    def submit(self, order: Order) -> None:
        """Carry it out as soon as nothing is in its way."""
        with self._lock:
            if self._stopping:
                return
            answer = self._queue.offer(order)
        match answer:
            case Dropped(why):
                logger.warning("{} is skipped: {}", order, why)
                self.recorder.skipped(order.kind, order.plan, order.trigger, f"skipped: {why}")
                return
            case None:
                pass
            case waits:
                logger.info("{} waits: {}", order, waits.why)
        self._start_next()

    def activities(self) -> list[Activity]:
        """What is under way, and what waits."""
        with self._lock:
            running = [self._activity(order, run) for order, run in self._begun.items()]
            waiting = [
                self._activity(order, None, self._queue.obstacle(order, before) or "others are under way")
                for order, before in self._queue.in_line()
            ]
        return [*running, *waiting]

    @property
    def idle(self) -> bool:
        """Whether nothing is under way."""
        with self._lock:
            return not self._begun

    def resize(self, parallel: int) -> None:
        """From now on that many at a time."""
        with self._lock:
            self._queue.parallel = parallel
        self._start_next()

    def stop(self) -> None:
        """Begin nothing any more. What waits is dropped: it is caught up when the daemon starts again."""
        with self._lock:
            self._stopping = True
            dropped = self._queue.clear()
        for order in dropped:
            logger.info("{} is not begun: the daemon stops", order)

    def _start_next(self) -> None:
        with self._lock:
            orders = [] if self._stopping else self._queue.take()
            for order in orders:
                self._begun[order] = None
        for order in orders:
            try:
                Thread(target=self._carry_out, args=(order,), name=str(order), daemon=True).start()
            except RuntimeError as exc:  # the container may have no more of them
                self._not_begun(order, str(exc))

    def _not_begun(self, order: Order, why: str) -> None:
        """A run that failed, and that stands in nobody's way."""
        with self._lock:
            self._queue.done(order)
            del self._begun[order]
        logger.error("{} could not be begun: {}", order, why)
        with suppress(BackupdError), self.recorder.run(order.kind, order.plan, order.trigger):
            raise BackupdError(f"could not be begun: {why}")

    def _carry_out(self, order: Order) -> None:
        try:
            self._recorded(order)
        except Exception:
            logger.opt(exception=True).error("{}: this should not have happened", order)
        finally:
            with self._lock:
                self._queue.done(order)
                del self._begun[order]
            self._start_next()
            self._wake()

    def _recorded(self, order: Order) -> None:
        try:
            with self.recorder.run(order.kind, order.plan, order.trigger) as draft, bound_run(draft.run.id):
                with self._lock:
                    self._begun[order] = draft.run
                self._wake()
                logger.info("{} begins ({})", order, order.trigger)
                try:
                    self._in_a_process(order, draft)
                except RunSkipped as exc:
                    logger.warning("{} {}", order, exc)
                    raise
                except Interrupted as exc:
                    logger.warning("{} was aborted: {}", order, exc)
                    raise
                except PartialFailure as exc:
                    logger.error("{} was done in part: {}{}", order, exc, _hint(exc))
                    raise
                except BackupdError as exc:
                    logger.error("{} failed: {}{}", order, exc, _hint(exc))
                    raise
                logger.info("{} is done{}", order, self._figures(draft.run))
        except BackupdError:
            return  # said and recorded; the daemon goes on

    def _in_a_process(self, order: Order, draft: Draft) -> None:
        task = Task("run", draft.run, order.settings, order.overlap, self._handed.identity, self._handed.level)
        reply = self._workers.carry_out(task)
        draft.run = reply.run
        if (error := failure(reply)) is not None:
            raise error

    def _figures(self, run: Run) -> str:
        span = duration(self._clock.now() - run.started)
        if run.kind != "backup" or run.snapshot is None:
            return f" in {span}"
        return (
            f" in {span}: snapshot {run.snapshot[:8]}, {size(run.plain_bytes)} of data, {size(run.stored_bytes)} stored"
        )

    def _activity(self, order: Order, run: Run | None, waits_for: str | None = None) -> Activity:
        return Activity(
            kind=order.kind,
            plan=order.plan,
            trigger=order.trigger,
            since=run.started if run else order.since,
            id=run.id if run else None,
            waits_for=waits_for,
        )


def _hint(error: BackupdError) -> str:
    return f" ({error.hint})" if error.hint else ""
