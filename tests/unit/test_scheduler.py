"""What APScheduler makes of our entries, in real time of tenths of a second."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from zoneinfo import ZoneInfo

from msgspec.structs import replace

from backupd.agenda import Entry
from backupd.scheduler import Scheduler

TENTH = timedelta(milliseconds=100)


@dataclass(frozen=True)
class Every:
    """Every tenth of a second, the first `late` ago."""

    late: timedelta = timedelta()
    begun: list[datetime] = field(default_factory=list, compare=False)

    def after(self, moment: datetime, zone: ZoneInfo) -> datetime:
        if self.begun:
            return moment + TENTH if not self.late else datetime.now(UTC) + timedelta(days=1)
        self.begun.append(moment)
        return moment - self.late + TENTH

    def before(self, moment: datetime, zone: ZoneInfo) -> datetime:
        return moment


NEVER = timedelta(days=1)


@dataclass
class Told:
    fired: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)


def scheduled(random: Random | None = None) -> tuple[Scheduler, Told]:
    told = Told()
    fired, missed = told.fired, told.missed
    return Scheduler(
        lambda entry: fired.append(entry.key), lambda entry: missed.append(entry.key), random or Random(0)
    ), told


@contextmanager
def scheduler(*entries: Entry) -> Iterator[tuple[Scheduler, Told]]:
    made, told = scheduled()
    made.start(entries)
    try:
        yield made, told
    finally:
        made.stop()


def entry(plan: str = "n", late: timedelta = timedelta(), **fields: object) -> Entry:
    return Entry("backup", plan, "* * * * *", "UTC", Every(late), **fields)  # type: ignore[arg-type]


def until(condition: object) -> None:
    deadline = time.monotonic() + 60
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_it_fires_again_and_again() -> None:
    with scheduler(entry("a"), entry("b")) as (_, told):
        until(lambda: told.fired.count("backup of a") > 2 and told.fired.count("backup of b") > 2)
    assert told.missed == []


def test_what_was_due_while_the_machine_slept_fires_once() -> None:
    with scheduler(entry(late=timedelta(hours=9))) as (made, told):
        until(lambda: told.fired)
        made.wake()
        time.sleep(0.3)
        assert told.fired == ["backup of n"]
        assert told.missed == []


def test_unless_it_is_not_to_be_caught_up() -> None:
    with scheduler(entry(late=timedelta(hours=9), catch_up=False)) as (_, told):
        until(lambda: told.missed)
        time.sleep(0.3)
        assert told.fired == []
        assert told.missed == ["backup of n"]


def test_replacing_keeps_the_times_of_what_stays() -> None:
    kept, gone, new = entry("kept", -NEVER), entry("gone", -NEVER), entry("new", -NEVER)
    with scheduler(kept, gone) as (made, _):
        before = made.due()
        made.replace([kept, new])
        assert made.due().keys() == {"backup of kept", "backup of new"}
        assert made.due()["backup of kept"] == before["backup of kept"]
        changed = replace(kept, jitter_seconds=1000.0, times=Every(-NEVER))
        made.replace([changed])
        assert made.due().keys() == {"backup of kept"}
        assert made.due()["backup of kept"] != before["backup of kept"]


class Once:
    """Daily at this time of a day."""

    def __init__(self, time: datetime) -> None:
        self._time = time

    def after(self, moment: datetime, zone: ZoneInfo) -> datetime:
        return self._time if moment < self._time else self.after(moment - NEVER, zone) + NEVER

    def before(self, moment: datetime, zone: ZoneInfo) -> datetime:
        return moment


def test_what_falls_due_while_it_starts_fires_at_once() -> None:
    now = datetime.now(UTC)
    made, told = scheduled()
    made.start([replace(entry(), times=Once(now - TENTH))], now - 2 * TENTH)
    try:
        until(lambda: told.fired)
    finally:
        made.stop()
    assert told.fired == ["backup of n"]


def test_what_waits_out_its_jitter_is_due_although_it_is_replaced_or_the_clock_is_set() -> None:
    time = datetime.now(UTC) - timedelta(minutes=5)
    waiting = replace(entry(), times=Once(time), jitter_seconds=3600.0)
    made, _ = scheduled(High(0))
    made.start([waiting], time - TENTH)
    try:
        assert time < made.due()["backup of n"] < time + timedelta(hours=1)
        made.replace([replace(waiting, overlap="skip")])
        assert time < made.due()["backup of n"] < time + timedelta(hours=1)
        made.begin_anew()
        assert time < made.due()["backup of n"] < time + timedelta(hours=1)
        made.replace([])
        made.replace([waiting])  # it was not scheduled in between: tomorrow
        assert made.due()["backup of n"] > time + timedelta(hours=23)
    finally:
        made.stop()


class High(Random):
    """Most of what may be."""

    def random(self) -> float:
        return 0.9


def test_jitter_delays_by_no_more_than_it_may() -> None:
    entries = [entry(f"p{number}", -NEVER, jitter_seconds=600.0) for number in range(50)]
    now = datetime.now(UTC)
    with scheduler(*entries) as (made, _):
        delays = [(due - now - NEVER - TENTH).total_seconds() for due in made.due().values()]
    assert min(delays) >= 0
    assert max(delays) < 660
    assert max(delays) - min(delays) > 60, "all at once"


def test_beginning_anew_after_the_clock_was_set_back() -> None:
    with scheduler(entry(late=-NEVER)) as (made, _):
        before = made.due()["backup of n"]
        made.begin_anew()
        assert made.due()["backup of n"] != before, "it was found anew"
