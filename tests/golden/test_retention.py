"""Retention tables: what is kept of given snapshots, and why, must never change unnoticed.

A table is a text file: policy, time zone, then a line a snapshot, newest first, as `prune --dry-run` orders them.
`python -m tests.golden.test_retention` writes those that are missing, and never one that is there.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from msgspec.structs import fields

from backupd.model import KeepPolicy
from backupd.retention import decide

TABLES = Path(__file__).parent / "retention"
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class Point:
    id: str
    time: datetime
    volumes: frozenset[str]
    proven: bool = False


def nightly(nights: int, partial: int = 0) -> list[Point]:
    """At 2:00 in Madrid; every `partial`-th run lacks the database."""
    zone = ZoneInfo("Europe/Madrid")
    today = datetime(2026, 11, 22, 2, tzinfo=zone)
    times = [(today - timedelta(days=night)).astimezone(UTC) for night in range(nights)]
    return [
        Point(f"{number:04}", time, frozenset({"storage"} if partial and number % partial == 0 else {"db", "storage"}))
        for number, time in enumerate(times)
    ]


def hourly(hours: int, end: datetime) -> list[Point]:
    return [Point(f"{number:04}", end - number * HOUR / 2, frozenset({"db"})) for number in range(2 * hours)]


def irregular() -> list[Point]:
    rng = random.Random(2026)
    times = sorted(NOW - timedelta(minutes=rng.randrange(0, 60 * 24 * 900)) for _ in range(120))
    return [
        Point(f"{number:04}", time, frozenset(rng.sample(["db", "redis", "storage"], rng.randint(1, 3))))
        for number, time in enumerate(times)
    ]


CASES: dict[str, tuple[list[Point], KeepPolicy, str]] = {
    "sample": (nightly(250), KeepPolicy(last=3, daily=7, weekly=4, monthly=6), "Europe/Madrid"),
    "production": (
        nightly(400, partial=5),
        KeepPolicy(last=7, daily=14, weekly=8, monthly=12, yearly=3, at_least=3),
        "Europe/Madrid",
    ),
    "proven": (
        [replace(point, proven=number % 9 == 5) for number, point in enumerate(nightly(250))],
        KeepPolicy(daily=7, weekly=4, monthly=6, proven=2, prefer_proven=True),
        "Europe/Madrid",
    ),
    "summer-time-ends": (
        hourly(30, datetime(2026, 10, 25, 12, tzinfo=UTC)),
        KeepPolicy(hourly=14, daily=2),
        "Europe/Madrid",
    ),
    "summer-time-begins": (
        hourly(30, datetime(2026, 3, 29, 12, tzinfo=UTC)),
        KeepPolicy(hourly=14, daily=2),
        "Europe/Madrid",
    ),
    "quarter-hours": (hourly(30, NOW), KeepPolicy(hourly=6, daily=2), "Asia/Kathmandu"),
    "within": (hourly(60, NOW), KeepPolicy(within=3 * HOUR, daily=2), "UTC"),
    "irregular": (irregular(), KeepPolicy(last=2, weekly=5, monthly=4, yearly=2), "America/New_York"),
    "turn-of-the-year": (
        [
            Point(f"{day:02}", datetime(2026, 12, 25, 23, 30, tzinfo=UTC) + timedelta(days=day), frozenset({"db"}))
            for day in range(14)
        ],
        KeepPolicy(weekly=3, monthly=2, yearly=2),
        "Europe/Madrid",
    ),
}


def table(name: str) -> str:
    snapshots, policy, zone = CASES[name]
    now = max(NOW, *(point.time for point in snapshots))
    return "\n".join([f"# {_said(policy)}", f"# {zone}", *_lines(snapshots, policy, now, zone), ""])


def _said(policy: KeepPolicy) -> str:
    """As tables have always said it: what they were made before is named only where it is used."""
    found = [(field.name, getattr(policy, field.name), field.default) for field in fields(policy)]
    said = [f"{name}={value!r}" for name, value, default in found if value != default or "proven" not in name]
    return f"KeepPolicy({', '.join(said)})"


def _lines(snapshots: list[Point], policy: KeepPolicy, now: datetime, zone: str) -> Iterator[str]:
    proven = {point.id for point in snapshots if point.proven}
    for decision in decide(snapshots, policy, now, ZoneInfo(zone), proven):
        point = decision.snapshot
        local = f"{point.time.astimezone(ZoneInfo(zone)):%a %Y-%m-%d %H:%M %z}"
        verdict = "; ".join(decision.reasons) if decision.keep else "-"
        mark = " ✓" if point.proven else ""
        yield f"{point.id}  {local}  {','.join(sorted(point.volumes)):16}  {verdict}{mark}"


@pytest.mark.parametrize("name", CASES)
def test_table(name: str) -> None:
    assert table(name) == (TABLES / f"{name}.txt").read_text()


def test_there_are_no_others() -> None:
    assert {path.stem for path in TABLES.iterdir()} == set(CASES)


if __name__ == "__main__":
    for case in CASES:
        path = TABLES / f"{case}.txt"
        if not path.exists():
            path.write_text(table(case))
