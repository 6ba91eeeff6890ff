"""The daemon's life: prepare, fire, beat, read the configuration anew, stop."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime

from loguru import logger

from backupd import __version__
from backupd.agenda import Entry
from backupd.daemon.clockwatch import ClockWatch
from backupd.daemon.dispatcher import Dispatcher
from backupd.daemon.known import KnownSince
from backupd.daemon.lock import daemon_lock
from backupd.daemon.missed import missed_runs
from backupd.daemon.orders import make_order
from backupd.daemon.preparing import Preparation
from backupd.daemon.queue import Queue
from backupd.daemon.signals import Signals
from backupd.daemon.stopping import Stopping
from backupd.daemon.surroundings import Surroundings
from backupd.daemon.worker import Workers
from backupd.engine.confine import unconfined
from backupd.errors import BackupdError, ConfigError
from backupd.history import History, Trigger
from backupd.process import this_process
from backupd.runs import Recorder
from backupd.scheduler import Scheduler
from backupd.settings import Settings
from backupd.status import BEAT_SECONDS, DaemonStatus, NextRun, StatusFile


class Daemon:
    """`run` returns when it was told to stop and all runs are over. It implements StatusSource."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._settings = around.load()
        self._started = self._configured = around.clock.now()
        self._config_error: str | None = None
        self._status_trouble: str | None = None
        self._stopping: Stopping | None = None
        self._ready = False
        self._workers = Workers()
        self._scheduler = Scheduler(self._fire, self._too_late, around.random)
        self._watch = ClockWatch(self._started, around.monotonic())
        self._services = ExitStack()

    def run(self) -> None:
        """Live. LockedError if another daemon has the state directory."""
        state = self._settings.state_dir
        with daemon_lock(state, self._started), Signals(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            self._around.log(self._settings)
            self._watching = self._around.watching(self._settings)
            self._dispatcher = Dispatcher(
                Queue(self._settings.daemon.parallel),
                self._workers,
                self._recorder(),
                self._around.clock,
                signals.wake,
                self._around.handed,
            )
            self._file = StatusFile(state)
            self._known = KnownSince(state)
            logger.info("backupd {} starts, its state is in {}", __version__, state)
            if self._settings.engine == "mounted" and (said := unconfined()):
                logger.warning("{} (`backupd doctor` says more)", said)
            with self._file_removed(), self._services:
                self._serve()
                self._preparation = Preparation(self._around, self._workers, signals.wake)
                self._preparation.begin(self._settings, self._dispatcher.recorder)
                self._loop(signals)
                self._scheduler.stop()
            logger.info("backupd has stopped")

    def status(self) -> DaemonStatus:
        """See StatusSource."""
        return DaemonStatus(
            process=this_process(),
            program=f"backupd {__version__}",
            started=self._started,
            beat=self._around.clock.now(),
            ready=self._ready,
            stopping=self._stopping is not None,
            configured=self._configured,
            config_error=self._config_error,
            next_runs=self._next_runs(),
            activities=self._dispatcher.activities(),
        )

    def _loop(self, signals: Signals) -> None:
        beat = self._around.monotonic()
        while True:
            now = self._around.monotonic()
            if now >= beat:
                self._beat()
                beat = now + BEAT_SECONDS
            if self._stopping is not None and self._stopped(self._stopping, now):
                return
            if self._preparation.over and not self._ready and self._stopping is None:
                self._begin()
            pause = beat - now if self._stopping is None else min(beat - now, self._stopping.pause(now))
            for number in signals.wait(pause):
                self._signal(number)
            self._write()  # a run has begun or ended

    def _signal(self, number: int) -> None:
        if number == signal.SIGHUP:
            self._reload()
        elif self._stopping is None:
            within = self._settings.daemon.stop_within.total_seconds()
            logger.info("told to stop: runs that are under way may take up to {:.0f} s", within)
            self._stopping = Stopping.begin(self._around.monotonic(), within)
            self._scheduler.stop()
            self._dispatcher.stop()
            self._beat()
        else:
            self._stopping.hurry(self._around.monotonic())

    def _stopped(self, stopping: Stopping, now: float) -> bool:
        if self._dispatcher.idle and self._preparation.over:
            return True
        match stopping.act(now):
            case "abort":
                logger.warning("what is under way is aborted")
                self._workers.abort()
            case "kill":
                logger.error("what is under way did not end in time and is killed: the next start recovers")
                self._workers.kill()
            case None:
                pass
        return stopping.given_up(now)

    def _begin(self) -> None:
        """Recovered: from now on schedules fire, and what was missed is caught up."""
        now = self._around.clock.now()
        entries = self._around.agenda(self._settings)
        self._scheduler.start(entries, now)  # what was due until then is caught up, what is due since then fires
        self._ready = True
        self._forget(now)
        self._announce(entries)
        known = self._met(entries, now)
        try:
            history = self._dispatcher.recorder.history
            missed = missed_runs(entries, self._preparation.last, history, known, now)
        except BackupdError as exc:
            logger.error("what was missed is not known: {}", exc)
            return
        for entry, due in sorted(missed, key=lambda pair: pair[0].kind != "backup"):
            if entry.catch_up:
                logger.warning("{} was missed at {}, and is caught up now", entry.key, _local(due))
                self._order(entry, "catch-up")
            else:
                self._left_out(entry, due, history)

    def _left_out(self, entry: Entry, due: datetime, history: History) -> None:
        """Say, and record once, that a run was missed and is not caught up."""
        logger.warning("{} was missed at {}", entry.key, _local(due))
        try:
            before = history.last(entry.kind, entry.plan, ["skipped"])
        except BackupdError as exc:
            logger.error("{}", exc)
            return
        if before is None or before.started < due:
            why = f"missed at {_local(due)}, and not to be caught up"
            self._dispatcher.recorder.skipped(entry.kind, entry.plan, "schedule", why)

    def _met(self, entries: Sequence[Entry], now: datetime) -> dict[str, datetime]:
        keys = [entry.key for entry in entries]
        try:
            return self._known.meet(keys, now)
        except BackupdError as exc:
            logger.error("{}", exc)
            return self._known.look(keys, now)

    def _fire(self, entry: Entry) -> None:
        self._order(entry, "schedule")

    def _too_late(self, entry: Entry) -> None:
        logger.warning("{} was missed while the machine or this process stood still", entry.key)
        why = "missed: the machine or the daemon stood still"
        self._dispatcher.recorder.skipped(entry.kind, entry.plan, "schedule", why)

    def _order(self, entry: Entry, trigger: Trigger) -> None:
        settings = self._settings
        if entry.plan is None or entry.plan in settings.plans:
            now = self._around.clock.now()
            self._dispatcher.submit(make_order(entry.kind, entry.plan, trigger, entry.overlap, now, settings))

    def _beat(self) -> None:
        now = self._around.clock.now()
        moved = self._watch.look(now, self._around.monotonic())
        if moved and self._ready and self._stopping is None:
            logger.warning("the clock moved by {:+.0f} s, or the machine slept", moved)
            if moved < 0:
                self._scheduler.begin_anew()
        if self._ready and self._stopping is None:
            self._scheduler.wake()
        if self._watch.new_day:
            self._forget(now)
        self._write()

    def _write(self) -> None:
        """Keep the status file; what keeps it from being written is said once."""
        trouble = None
        try:
            self._file.write(self.status())
        except BackupdError as exc:
            trouble = str(exc)
        if trouble and trouble != self._status_trouble:
            logger.error("{}", trouble)
        self._status_trouble = trouble

    def _reload(self) -> None:
        logger.info("told to read the configuration anew")
        try:
            settings = self._around.load()
            if settings.state_dir != self._settings.state_dir:
                raise ConfigError(f"state_dir has changed to {settings.state_dir}", hint="this takes a restart")
        except BackupdError as exc:
            self._config_error = str(exc)
            for line in str(exc).splitlines():
                logger.error("{}", line)
            logger.error("the new configuration is refused, the old one goes on")
            self._beat()
            return
        self._use(settings)
        self._beat()

    def _use(self, settings: Settings) -> None:
        self._settings = settings
        self._config_error = None
        now = self._configured = self._around.clock.now()
        self._around.log(settings)
        self._watching = self._around.watching(settings)
        self._dispatcher.recorder.watchers = self._watching.watchers
        self._dispatcher.resize(settings.daemon.parallel)
        if self._ready and self._stopping is None:
            entries = self._around.agenda(settings)
            self._scheduler.replace(entries)
            self._met(entries, now)
            self._announce(entries)
        self._serve()
        logger.info("the new configuration is in use")

    def _serve(self) -> None:
        """Start, or start anew, what else is kept up."""
        self._services.close()
        for service in self._watching.services(self):
            try:
                self._services.enter_context(service)
            except BackupdError as exc:  # backups matter more
                logger.error("{}", exc)

    def _recorder(self) -> Recorder:
        history, around = History(self._settings.state_dir), self._around
        return Recorder(history, around.clock, around.new_id, logger.warning, self._watching.watchers)

    def _forget(self, now: datetime) -> None:
        try:
            self._dispatcher.recorder.history.forget(now - self._settings.history.keep)
        except BackupdError as exc:
            logger.error("{}", exc)

    def _next_runs(self) -> list[NextRun]:
        due = self._scheduler.due() if self._ready and self._stopping is None else {}
        return [
            NextRun(
                kind=entry.kind,
                plan=entry.plan,
                schedule=entry.schedule,
                timezone=entry.timezone,
                at=due[entry.key].astimezone(UTC),
            )
            for entry in self._around.agenda(self._settings)
            if entry.key in due
        ]

    def _announce(self, entries: Sequence[Entry]) -> None:
        if not entries:
            logger.warning("no plan has a schedule: there is nothing to do")
        due = self._scheduler.due()
        for entry in entries:
            logger.info("{}: {} ({}), next at {}", entry.key, entry.schedule, entry.timezone, _local(due[entry.key]))

    @contextmanager
    def _file_removed(self) -> Iterator[None]:
        try:
            yield
        finally:
            self._file.remove()


def _local(moment: datetime) -> str:
    return moment.astimezone().isoformat(" ", "seconds")
