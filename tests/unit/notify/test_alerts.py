"""Facts, conditions, alerts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backupd.errors import SourceError
from backupd.history import History, Run, VolumeFigures
from backupd.notify.alerts import Raised, step
from backupd.notify.conditions import Condition, Facts, Limits, SizeLimits, Space, judge
from backupd.notify.events import Event
from backupd.notify.facts import gather, space_of
from backupd.notify.watchdog import Watchdog
from tests.support.runtime import BEGIN, TickingClock

MIB = 1024**2
DAY = timedelta(days=1)
KEY = ("nightly", "data")


def state_of(facts: Facts, limits: Limits | None = None, now: datetime = BEGIN) -> str:
    (condition,) = judge(facts, limits or Limits(), now)
    return condition.state


@pytest.mark.parametrize(
    ("sizes", "state"),
    [
        ((40, 100, 100, 100), "bad"),
        ((50, 100, 100, 100), "good"),
        ((300, 100, 100, 100), "good"),
        ((301, 100, 100, 100), "bad"),
        ((30, 100, 300, 110, 90, 100, 1, 1, 1, 1, 1, 1), "bad"),  # the median of five, not of all
        ((5, 9), "good"),  # small
        ((5, 11), "bad"),
        ((0, 100), "bad"),
    ],
)
def test_sizes(sizes: Sequence[int], state: str) -> None:
    assert state_of(Facts(sizes={KEY: [size * MIB for size in sizes]})) == state


def test_the_snapshot_before_alone() -> None:
    facts = Facts(sizes={KEY: [100 * MIB, 250 * MIB, 90 * MIB, 90 * MIB]})
    assert state_of(facts, Limits(compare_with=1)) == "bad"
    assert state_of(facts, Limits(compare_with=3)) == "good"


def test_the_first_run_has_no_usual_size() -> None:
    assert judge(Facts(sizes={KEY: [MIB]}), Limits(), BEGIN) == []


def test_limits_of_a_volume() -> None:
    facts = Facts(sizes={KEY: [80 * MIB, 100 * MIB]})
    assert state_of(facts, Limits({KEY: SizeLimits(shrink=0.1)})) == "bad"
    assert state_of(Facts(sizes={KEY: [0, 100 * MIB]}), Limits({KEY: SizeLimits(None, None)})) == "good"


@pytest.mark.parametrize(
    ("good", "known", "state"),
    [(0, -9, "good"), (-2, -9, "bad"), (None, -9, "bad"), (None, 0, "good"), (-1, -9, "good")],
)
def test_ages(good: int | None, known: int, state: str) -> None:
    facts = Facts(
        good={"nightly": None if good is None else BEGIN + good * DAY}, known={"nightly": BEGIN + known * DAY}
    )
    assert state_of(facts, Limits(ages={"nightly": DAY})) == state


@pytest.mark.parametrize(
    ("space", "state"),
    [
        (Space(4, 100), "bad"),
        (Space(5, 100), "nearly"),
        (Space(6, 100), "good"),
        (None, "unknown"),
    ],
)
def test_free_space(space: Space | None, state: str) -> None:
    assert state_of(Facts(space={"store local": space})) == state
    if space == Space(6, 100):
        assert state_of(Facts(space={"store local": space}), Limits(free_bytes=7)) == "bad"


def condition(state: str, subject: str = "store local") -> Condition:
    return Condition("space", subject, state, f"{subject} is {state}")  # type: ignore[arg-type]


def course(*states: str, every: timedelta = timedelta(hours=1), remind: timedelta = DAY) -> list[str]:
    """What is told when these states are seen one after the other."""
    raised: dict[str, Raised] = {}
    told = []
    for number, state in enumerate(states):
        raised, events = step(raised, [condition(state)], BEGIN + number * every, remind)
        told += [f"{number} {event.name}" for event in events]
    return told


def test_the_course_of_an_alert() -> None:
    assert course("good", "bad", "bad", "bad", "good", "good") == ["1 alert", "4 recovery"]
    assert course("bad", "unknown", "nearly", "bad", "good") == ["0 alert", "4 recovery"]
    assert course("nearly", "unknown", "good") == []
    assert course(*["bad"] * 50) == ["0 alert", "24 alert", "48 alert"]


def test_what_is_no_longer_watched_ends_without_a_word() -> None:
    raised, _ = step({}, [condition("bad")], BEGIN, DAY)
    assert step(raised, [], BEGIN, DAY) == ({}, [])


def test_words_of_alerts() -> None:
    raised, (first,) = step({}, [condition("bad")], BEGIN, DAY)
    raised, (again,) = step(raised, [condition("bad")], BEGIN + DAY, DAY)
    _, (end,) = step(raised, [condition("good")], BEGIN + 2 * DAY, DAY)
    assert (first.summary, again.summary) == ("store local is bad", "still, for 24 h 0 min: store local is bad")
    assert end.summary == "no longer an alert: store local is good"
    assert end.details == ("it lasted 48 h 0 min: store local is bad",)
    assert end.ended == "alert"


@given(st.lists(st.sampled_from(["good", "bad", "unknown", "nearly"]), max_size=60), st.integers(1, 10))
def test_every_alert_ends_once_and_is_not_told_more_often_than_that(states: list[str], hours: int) -> None:
    told = [entry.split() for entry in course(*states, remind=timedelta(hours=hours))]
    on, last = False, -99
    for number, name in told:
        if name == "alert":
            assert not on or int(number) - last >= hours
            on, last = True, int(number)
        else:
            assert on
            on = False
    settled = [state for state in states if state in {"good", "bad"}]
    assert on == (bool(settled) and settled[-1] == "bad")


def backed_up(history: History, number: int, outcome: str = "done", **sizes: int) -> None:
    volumes = {
        name: VolumeFigures(
            plain_bytes=size * MIB, new_bytes=0, stored_bytes=0, files=1, warnings=0, seconds=1, full=False
        )
        for name, size in sizes.items()
    }
    time = BEGIN + timedelta(hours=number)
    times = {"started": time, "finished": time}
    history.put(Run(id=f"{number:016x}", kind="backup", plan="nightly", outcome=outcome, volumes=volumes, **times))  # type: ignore[arg-type]


def test_facts_of_a_history(tmp_path: Path) -> None:
    history = History(tmp_path)
    backed_up(history, 1, data=10, redis=1)
    backed_up(history, 2, "partial", data=20)
    backed_up(history, 3, "failed")
    facts = gather(history, ["nightly", "new"], {"state directory": tmp_path, "far": tmp_path / "no" / "such"}, 5, {})
    assert facts.sizes == {("nightly", "data"): [20 * MIB, 10 * MIB], ("nightly", "redis"): [MIB]}
    assert facts.good == {"nightly": BEGIN + timedelta(hours=1), "new": None}
    here, far = facts.space["state directory"], facts.space["far"]
    assert here is not None
    assert far is not None
    assert far.total == here.total  # what is free may change between the two looks
    history.put(
        Run(
            id="b" * 16,
            kind="backup",
            plan="nightly",
            part=True,
            started=BEGIN + DAY,
            finished=BEGIN + DAY,
            outcome="done",
        )
    )
    assert gather(history, ["nightly"], {}, 5, {}).good == {"nightly": BEGIN + timedelta(hours=1)}
    later = gather(history, ["nightly"], {}, 5, {}, lambda _: BEGIN + DAY)
    assert later.good == {"nightly": BEGIN + DAY}


def test_space_that_cannot_be_asked(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert space_of(tmp_path / "file" / "below") is None


def watchdog(state: Path, conditions: list[Condition], told: list[Event], warned: list[str]) -> Watchdog:
    def look(known: object, now: datetime) -> list[Condition]:
        return conditions

    return Watchdog(
        state, TickingClock(), look, frozenset(["nightly"]), (timedelta(seconds=1), DAY), (told.append, warned.append)
    )


def test_a_restart_neither_repeats_nor_forgets(tmp_path: Path) -> None:
    told: list[Event] = []
    for state in ("bad", "bad", "good", "good"):
        watchdog(tmp_path, [condition(state)], told, []).check()
    assert [event.name for event in told] == ["alert", "recovery"]


def test_since_when_a_plan_is_known_is_kept(tmp_path: Path) -> None:
    seen = []
    for day in range(2):
        dog = Watchdog(
            tmp_path, TickingClock(BEGIN + day * DAY), lambda known, _: seen.append(known["nightly"]) or [],  # type: ignore[func-returns-value]
            frozenset(["nightly"]), (DAY, DAY), (print, print),
        )  # fmt: skip
        dog.check()
    assert seen[0] == seen[1]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (SourceError("the disk is gone"), "the disk is gone"),
        (KeyError("oh"), "alerts: this should not have happened: KeyError: 'oh'"),
    ],
)
def test_it_looks_by_itself_and_after_each_run_whatever_fails(tmp_path: Path, error: Exception, text: str) -> None:
    import threading  # noqa: PLC0415

    looked = threading.Semaphore(0)

    def look(known: object, now: datetime) -> list[Condition]:
        looked.release()
        raise error

    warned: list[str] = []
    dog = Watchdog(tmp_path, TickingClock(), look, frozenset(), (DAY, DAY), (print, warned.append))
    dog.start()
    assert looked.acquire(timeout=60)
    dog.ended(Run(id="a", kind="backup", started=BEGIN))
    assert looked.acquire(timeout=60)
    dog.stop()
    assert warned == [text]


def test_a_state_that_cannot_be_read_counts_as_empty(tmp_path: Path) -> None:
    told: list[Event] = []
    (tmp_path / "alerts.json").write_text("[]")
    dog = watchdog(tmp_path, [condition("bad")], told, [])
    dog.check()
    assert [event.name for event in told] == ["alert"]
    assert list(dog.raised()) == ["space/store local"]
