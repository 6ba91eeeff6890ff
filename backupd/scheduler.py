"""APScheduler, with triggers of our own: what is due when is decided by the entries."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from random import Random
from zoneinfo import ZoneInfo

from apscheduler.events import EVENT_JOB_MISSED, JobExecutionEvent
from apscheduler.executors.debug import DebugExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger

from backupd.agenda import Entry

_LATE_SECONDS = 300
"""How late what is not to be caught up may still begin."""


class Scheduler:
    """Calls `fire` with an entry when it is due, from its own thread; `missed` when it is too late for it.

    What was due several times while the machine slept fires once.
    """

    def __init__(self, fire: Callable[[Entry], None], missed: Callable[[Entry], None], random: Random) -> None:
        self._fire = fire
        self._missed = missed
        self._random = random
        self._entries: dict[str, Entry] = {}
        self._triggers: dict[str, _Trigger] = {}
        self._scheduler = BackgroundScheduler(
            timezone=ZoneInfo("UTC"),
            executors={"default": DebugExecutor()},  # `fire` only hands over: no threads are needed for it
            job_defaults={"coalesce": True, "max_instances": 1_000_000},
        )
        self._scheduler.add_listener(self._tell_missed, EVENT_JOB_MISSED)

    def start(self, entries: Sequence[Entry], since: datetime | None = None) -> None:
        """Begin; entries are due from that moment on (None: now): what was due since then fires at once."""
        self._replace(entries, dict.fromkeys((entry.key for entry in entries), since))
        self._scheduler.start()

    def replace(self, entries: Sequence[Entry]) -> None:
        """Schedule these and nothing else, from now on; those that stay as they are keep their time.

        One that is changed while it waits out its jitter is still due.
        """
        self._replace(entries, self._waiting_out())

    def begin_anew(self) -> None:
        """The clock was set: what is due next is found anew from now."""
        entries, since = list(self._entries.values()), self._waiting_out()
        self._replace([], {})
        self._replace(entries, since)

    def _replace(self, entries: Sequence[Entry], since: Mapping[str, datetime | None]) -> None:
        wanted = {entry.key: entry for entry in entries}
        for key in [key for key, entry in self._entries.items() if wanted.get(key) != entry]:
            self._scheduler.remove_job(key)
            del self._entries[key], self._triggers[key]
        for key, entry in wanted.items():
            if key not in self._entries:
                self._entries[key] = entry
                self._triggers[key] = _Trigger(entry, self._random, since.get(key))
                self._scheduler.add_job(
                    partial(self._fire, entry),
                    trigger=self._triggers[key],
                    id=key,
                    misfire_grace_time=None if entry.catch_up else _LATE_SECONDS,
                )

    def _waiting_out(self) -> dict[str, datetime | None]:
        """Of entries whose time has come but for their jitter, a moment right before that time."""
        now = datetime.now(UTC)
        dues = {key: trigger.due for key, trigger in self._triggers.items()}
        return {key: due - timedelta(microseconds=1) for key, due in dues.items() if due is not None and due <= now}

    def due(self) -> dict[str, datetime]:
        """When each entry is due next, jitter included, by its key."""
        return {job.id: job.next_run_time for job in self._scheduler.get_jobs()}

    def wake(self) -> None:
        """Look at the clock: it may have been set, or stood still while the machine slept."""
        self._scheduler.wakeup()

    def stop(self) -> None:
        """Fire no more."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)

    def _tell_missed(self, event: JobExecutionEvent) -> None:
        entry = self._entries.get(event.job_id)
        if entry is not None:
            self._missed(entry)


class _Trigger(BaseTrigger):  # type: ignore[misc]  # APScheduler has no types
    """`since`: the first time is the first after that, else after now. `due` is the next one, jitter not counted."""

    def __init__(self, entry: Entry, random: Random, since: datetime | None) -> None:
        self._entry = entry
        self._random = random
        self._since = since
        self.due: datetime | None = None

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime:
        self.due = self._entry.next(previous_fire_time or self._since or now)
        return self.due + timedelta(seconds=self._random.uniform(0, self._entry.jitter_seconds))
