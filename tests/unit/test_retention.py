"""Which snapshots are kept: rules, time zones, odd clocks, and what holds for whatever snapshots there are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from backupd.model import KeepPolicy
from backupd.retention import Decision, decide

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
MADRID = ZoneInfo("Europe/Madrid")
HOURS = timedelta(hours=1)


@dataclass(frozen=True)
class Point:
    id: str
    time: datetime
    volumes: frozenset[str] = frozenset({"a"})


def points(*times: str, volumes: str = "a") -> list[Point]:
    return [
        Point(f"{number:02}", datetime.fromisoformat(time), frozenset(volumes)) for number, time in enumerate(times)
    ]


def kept(decisions: list[Decision[Point]]) -> set[str]:
    return {decision.snapshot.id for decision in decisions if decision.keep}


def test_an_hour_that_comes_twice_is_two_hours() -> None:
    """On 25 October 2026, 3:00 summer time, clocks in Madrid go back to 2:00."""
    snapshots = points("2026-10-25T00:10Z", "2026-10-25T00:50Z", "2026-10-25T01:10Z", "2026-10-25T01:50Z")
    decisions = decide(snapshots, KeepPolicy(hourly=10), NOW, MADRID)
    assert {d.snapshot.id: d.reasons for d in decisions if d.keep} == {
        "03": ("hourly 2026-10-25 02h+0100",),
        "01": ("hourly 2026-10-25 02h+0200",),
    }


def test_days_are_those_of_the_time_zone() -> None:
    around_midnight = points("2026-11-01T22:30Z", "2026-11-01T23:30Z", "2026-11-02T22:30Z")
    assert kept(decide(around_midnight, KeepPolicy(daily=9), NOW, UTC)) == {"01", "02"}
    assert kept(decide(around_midnight, KeepPolicy(daily=9), NOW, MADRID)) == {"00", "02"}


def test_a_day_of_23_and_one_of_25_hours() -> None:
    spring = points("2026-03-28T23:00Z", "2026-03-29T21:59Z", "2026-03-29T22:00Z")
    assert [d.reasons for d in decide(spring, KeepPolicy(daily=9), NOW, MADRID)] == [
        ("daily 2026-03-30",),
        ("daily 2026-03-29",),
        (),
    ]
    autumn = points("2026-10-24T22:00Z", "2026-10-25T22:59Z", "2026-10-25T23:00Z")
    assert [d.reasons for d in decide(autumn, KeepPolicy(daily=9), NOW, MADRID)] == [
        ("daily 2026-10-26",),
        ("daily 2026-10-25",),
        (),
    ]


def test_a_date_that_comes_twice_is_one_day() -> None:
    """Until 2011 clocks in St. John's went back at 00:01, to 23:01 of the day before."""
    zone = ZoneInfo("America/St_Johns")
    snapshots = points("2010-11-07T02:30:30Z", "2010-11-07T02:31:30Z", "2010-11-07T03:29Z", "2010-11-07T03:31Z")
    assert [s.time.astimezone(zone).day for s in snapshots] == [7, 6, 6, 7]
    assert kept(decide(snapshots, KeepPolicy(daily=9), NOW, zone)) == {"03", "02"}


def test_weeks_at_the_turn_of_the_year() -> None:
    snapshots = points("2026-12-28T00:00Z", "2027-01-03T23:00Z", "2027-01-04T00:00Z")
    now = datetime(2027, 2, 1, tzinfo=UTC)
    decisions = decide(snapshots, KeepPolicy(weekly=5), now, UTC)
    assert [d.reasons for d in decisions] == [("weekly 2027-W01",), ("weekly 2026-W53",), ()]


def test_periods_without_snapshots_do_not_count() -> None:
    yearly = points("2010-01-01T00:00Z", "2015-01-01T00:00Z", "2020-01-01T00:00Z", "2026-01-01T00:00Z")
    assert kept(decide(yearly, KeepPolicy(daily=2), NOW, UTC)) == {"02", "03"}


def test_within_counts_from_the_newest_so_that_a_plan_that_stopped_keeps_what_it_has() -> None:
    snapshots = points("2020-01-01T00:00Z", "2020-01-02T00:00Z", "2020-01-02T00:01Z", "2020-01-04T00:00Z")
    assert kept(decide(snapshots, KeepPolicy(within=timedelta(days=2)), NOW, UTC)) == {"02", "03"}


def test_the_newest_of_each_volume_counts() -> None:
    """A run in which `b` failed, and runs of `a` alone, leave what is there of `b`."""
    both = points("2026-11-01T00:00Z", "2026-11-02T00:00Z", volumes="ab")
    alone = [Point(f"1{hour}", datetime(2026, 11, 2, hour, tzinfo=UTC), frozenset("a")) for hour in range(1, 5)]
    decisions = decide([*both, *alone], KeepPolicy(last=1, daily=2), NOW, UTC)
    assert [(d.snapshot.id, d.reasons) for d in decisions if d.keep] == [
        ("14", ("last", "daily 2026-11-02")),
        ("01", ("last (b)", "daily 2026-11-02 (b)")),
        ("00", ("daily 2026-11-01",)),
    ]


def test_a_snapshot_of_the_future_stays_and_displaces_nothing() -> None:
    snapshots = [*points("2026-11-19T00:00Z", "2026-11-20T00:00Z"), Point("x", datetime(2036, 1, 1, tzinfo=UTC))]
    decisions = decide(snapshots, KeepPolicy(last=1), NOW, UTC)
    assert [(d.snapshot.id, d.reasons) for d in decisions] == [
        ("x", ("taken in the future",)),
        ("01", ("last",)),
        ("00", ()),
    ]


def test_with_a_clock_of_long_ago_nothing_goes() -> None:
    snapshots = points("2026-11-19T00:00Z", "2026-11-20T00:00Z")
    assert kept(decide(snapshots, KeepPolicy(last=1), datetime(1970, 1, 1, tzinfo=UTC), UTC)) == {"00", "01"}


def test_clocks_that_differ_a_little_are_the_same() -> None:
    snapshots = [*points("2026-11-20T00:00Z"), Point("x", NOW + timedelta(minutes=50))]
    assert kept(decide(snapshots, KeepPolicy(last=1), NOW, UTC)) == {"x"}


def test_equal_times_are_ordered_by_id() -> None:
    same = [Point(name, NOW) for name in ("b", "c", "a")]
    assert [d.snapshot.id for d in decide(same, KeepPolicy(last=1), NOW, UTC)] == ["c", "b", "a"]
    assert kept(decide(same, KeepPolicy(last=1), NOW, UTC)) == {"c"}
    assert kept(decide(same, KeepPolicy(within=timedelta(seconds=1)), NOW, UTC)) == {"a", "b", "c"}


def test_at_least_says_so_only_where_no_other_rule_does() -> None:
    snapshots = points("2026-11-18T00:00Z", "2026-11-19T00:00Z", "2026-11-20T00:00Z")
    decisions = decide(snapshots, KeepPolicy(daily=1, at_least=2), NOW, UTC)
    assert [d.reasons for d in decisions] == [("daily 2026-11-20",), ("at least",), ()]


def test_proven_ones_are_kept_besides() -> None:
    snapshots = points("2026-11-17T00:00Z", "2026-11-18T00:00Z", "2026-11-19T00:00Z", "2026-11-20T00:00Z")
    decisions = decide(snapshots, KeepPolicy(last=1, proven=2), NOW, UTC, {"00", "01", "02"})
    assert [d.reasons for d in decisions] == [("last",), ("proven",), ("proven",), ()]


def test_a_proven_one_stands_for_its_day() -> None:
    snapshots = points("2026-11-18T00:00Z", "2026-11-18T08:00Z", "2026-11-19T00:00Z", "2026-11-19T08:00Z")
    policy = KeepPolicy(daily=2, prefer_proven=True)
    assert [d.reasons for d in decide(snapshots, policy, NOW, UTC, {"00"})] == [
        *[("daily 2026-11-19",), ()],
        *[(), ("daily 2026-11-18, proven",)],
    ]
    assert [d.reasons for d in decide(snapshots, policy, NOW, UTC, {"00", "01", "03"})] == [
        *[("daily 2026-11-19",), ()],
        *[("daily 2026-11-18",), ()],
    ]


def test_nobody_asks_for_proven_ones() -> None:
    snapshots = points("2026-11-18T00:00Z", "2026-11-18T08:00Z")
    assert kept(decide(snapshots, KeepPolicy(daily=2), NOW, UTC, {"00"})) == {"01"}


def test_nothing_comes_of_nothing() -> None:
    assert decide([], KeepPolicy(last=1), NOW, UTC) == []


# A few years, thick in places, with equal and future times among them.
TIMES = st.one_of(
    st.integers(-200, 3).map(lambda hours: NOW + hours * HOURS / 2),
    st.datetimes(datetime(2023, 1, 1), datetime(2027, 6, 1)).map(lambda time: time.replace(tzinfo=UTC)),
)
VOLUMES = st.frozensets(st.sampled_from("abc"), min_size=1)
SNAPSHOTS = st.lists(st.tuples(TIMES, VOLUMES), max_size=40).map(
    lambda found: [Point(f"{number:02}", time, volumes) for number, (time, volumes) in enumerate(found)]
)
COUNT = st.none() | st.integers(1, 8)
POLICIES = st.builds(
    KeepPolicy,
    last=COUNT,
    hourly=COUNT,
    daily=COUNT,
    weekly=COUNT,
    monthly=COUNT,
    yearly=COUNT,
    within=st.none() | st.integers(1, 2000).map(lambda hours: hours * HOURS),
    proven=COUNT,
    prefer_proven=st.booleans(),
    at_least=st.integers(1, 5),
)
ZONES = st.sampled_from(["UTC", "Europe/Madrid", "Asia/Kathmandu", "Pacific/Apia", "America/St_Johns"]).map(ZoneInfo)


@given(SNAPSHOTS, POLICIES, ZONES)
def test_every_snapshot_is_decided_once_newest_first(
    snapshots: list[Point], policy: KeepPolicy, zone: ZoneInfo
) -> None:
    decisions = decide(snapshots, policy, NOW, zone)
    times = [(d.snapshot.time, d.snapshot.id) for d in decisions]
    assert times == sorted(times, reverse=True)
    assert sorted(d.snapshot.id for d in decisions) == [s.id for s in snapshots]
    assert all(d.keep == bool(d.reasons) for d in decisions)


@given(SNAPSHOTS, POLICIES, ZONES)
def test_the_newest_of_every_volume_stays_and_at_least_so_many(
    snapshots: list[Point], policy: KeepPolicy, zone: ZoneInfo
) -> None:
    stay = kept(decide(snapshots, policy, NOW, zone))
    for volume in "abc":
        line = [s for s in sorted(snapshots, key=lambda s: (s.time, s.id), reverse=True) if volume in s.volumes]
        past = [s for s in line if s.time <= NOW + HOURS]
        for expected in (*line[:1], *past[: policy.at_least], *past[: policy.last or 0]):
            assert expected.id in stay


@given(SNAPSHOTS, POLICIES, ZONES, st.data())
def test_one_more_rule_never_removes_more(
    snapshots: list[Point], policy: KeepPolicy, zone: ZoneInfo, data: st.DataObject
) -> None:
    rules = ["last", "hourly", "daily", "weekly", "monthly", "yearly", "proven", "at_least"]
    rule = data.draw(st.sampled_from(rules))
    proven = {s.id for s in snapshots if data.draw(st.booleans())}
    added: dict[str, Any] = {rule: (getattr(policy, rule) or 0) + data.draw(st.integers(1, 4))}
    more = structs.replace(policy, **added)
    wider = structs.replace(policy, within=(policy.within or timedelta()) + HOURS)
    stay = kept(decide(snapshots, policy, NOW, zone, proven))
    assert stay <= kept(decide(snapshots, more, NOW, zone, proven))
    assert stay <= kept(decide(snapshots, wider, NOW, zone, proven))


@given(SNAPSHOTS, POLICIES, ZONES)
def test_what_stays_would_stay_again(snapshots: list[Point], policy: KeepPolicy, zone: ZoneInfo) -> None:
    first = [d for d in decide(snapshots, policy, NOW, zone) if d.keep]
    again = decide([d.snapshot for d in first], policy, NOW, zone)
    assert all(d.keep for d in again)


@given(SNAPSHOTS, POLICIES, ZONES, st.randoms(use_true_random=False))
def test_order_does_not_matter(snapshots: list[Point], policy: KeepPolicy, zone: ZoneInfo, random: object) -> None:
    expected = decide(snapshots, policy, NOW, zone)
    random.shuffle(snapshots)  # type: ignore[attr-defined]
    assert decide(snapshots, policy, NOW, zone) == expected


@given(SNAPSHOTS, POLICIES)
def test_no_bucket_is_kept_twice(snapshots: list[Point], policy: KeepPolicy) -> None:
    one_volume = [replace(s, volumes=frozenset("a")) for s in snapshots]
    reasons = [r for d in decide(one_volume, policy, NOW, UTC) for r in d.reasons if " 2" in r]
    assert len(reasons) == len(set(reasons))
    for rule in ("hourly", "daily", "weekly", "monthly", "yearly"):
        assert sum(r.startswith(rule) for r in reasons) <= (getattr(policy, rule) or 0)


@pytest.mark.parametrize("zone", ["UTC", "Europe/Madrid"])
def test_running_every_night_ends_with_the_same_as_pruning_once(zone: str) -> None:
    """Pruning often keeps what pruning once would have kept."""
    policy = KeepPolicy(daily=7, weekly=4, monthly=6)
    start = datetime(2026, 1, 1, 2, tzinfo=UTC)
    nights = [Point(f"{day:03}", start + timedelta(days=day)) for day in range(300)]
    held: list[Point] = []
    for night in nights:
        decisions = decide([*held, night], policy, night.time, ZoneInfo(zone))
        held = [d.snapshot for d in decisions if d.keep]
    once = decide(nights, policy, nights[-1].time, ZoneInfo(zone))
    assert {s.id for s in held} == kept(once)
