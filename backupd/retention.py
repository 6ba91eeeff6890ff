"""Retention: which snapshots of a plan are kept, and why. Pure: nothing is asked and nothing is done.

Every rule looks at each volume by itself, at the snapshots that hold it, newest first. So a run in which a volume
failed, or that was of one volume only, never takes the place of the newest snapshot that has the others; a snapshot
is kept if any of its volumes wants it. The time of a snapshot is when it began (`Manifest.time`), seen in the plan's
time zone; neither the time of any file or object nor the number of runs a day matters.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import islice
from typing import Generic, Protocol, TypeVar
from zoneinfo import ZoneInfo

from msgspec import Struct

from backupd.model import KeepPolicy

_AHEAD = timedelta(hours=1)
"""How far the clocks of two hosts may be apart before a snapshot counts as one of the future."""


class Snapshot(Protocol):
    """What retention looks at: a Manifest has it."""

    @property
    def id(self) -> str:
        """Tells snapshots of the same time apart."""
        ...

    @property
    def time(self) -> datetime:
        """When it began, with a time zone."""
        ...

    @property
    def volumes(self) -> Collection[str]:
        """The volumes that are in it; those that failed are not."""
        ...


S = TypeVar("S", bound=Snapshot)


class Decision(Struct, Generic[S], frozen=True):
    """Whether a snapshot is kept. `reasons` says why, one for each rule that wants it; empty for one that goes."""

    snapshot: S
    keep: bool
    reasons: tuple[str, ...]


def decide(
    snapshots: Iterable[S], policy: KeepPolicy, now: datetime, timezone: tzinfo, proven: Collection[str] = ()
) -> list[Decision[S]]:
    """A decision for every snapshot of one plan in one store, newest first; of equal times the greater id is newer.

    `proven` are the ids of those that a drill has found to be good.

    - `last`, `at_least`: the newest ones.
    - `hourly` … `yearly`: the newest of each of the last so many hours … years that have one, by the clock on the wall
      of `timezone`: an hour that comes twice when summer time ends is two hours, weeks begin on Monday (ISO 8601).
    - `within`: all that are less than that older than the newest one. Not than now: a plan that has stopped
      running would lose one snapshot after the other.
    - `proven`: the newest ones of those that are. `prefer_proven`: of each hour … year the newest of those, if any.

    A snapshot of the future (a clock was wrong) is kept and takes nobody's place.
    """
    ordered = sorted(snapshots, key=lambda snapshot: (snapshot.time, snapshot.id), reverse=True)
    found: dict[str, dict[str, set[str]]] = {snapshot.id: {} for snapshot in ordered}
    present = [snapshot for snapshot in ordered if snapshot.time <= now + _AHEAD]
    for volume in sorted({volume for snapshot in present for volume in snapshot.volumes}):
        line = [snapshot for snapshot in present if volume in snapshot.volumes]
        for reason, snapshot in _wanted(line, policy, timezone, proven):
            found[snapshot.id].setdefault(reason, set()).add(volume)
    decisions = []
    for snapshot in ordered:
        if snapshot.time > now + _AHEAD:
            reasons: tuple[str, ...] = ("taken in the future",)
        else:
            reasons = tuple(_said(reason, volumes, snapshot) for reason, volumes in found[snapshot.id].items())
        decisions.append(Decision(snapshot, bool(reasons), reasons))
    return decisions


def kept_ids(
    snapshots: Iterable[S], policy: KeepPolicy, now: datetime, timezone: str, proven: Collection[str] = ()
) -> set[str]:
    """The ids of those that are kept; `timezone` by its name."""
    decisions = decide(snapshots, policy, now, zone(timezone), proven)
    return {decision.snapshot.id for decision in decisions if decision.keep}


def zone(name: str) -> tzinfo:
    """A time zone by its name in the database; UTC also where there is no database."""
    return UTC if name == "UTC" else ZoneInfo(name)


def _wanted(
    line: Sequence[S], policy: KeepPolicy, timezone: tzinfo, proven: Collection[str]
) -> Iterator[tuple[str, S]]:
    """What the rules want of a volume's snapshots, newest first; one that several rules want comes several times."""
    wanted: list[tuple[str, S]] = [("last", snapshot) for snapshot in line[: policy.last or 0]]
    preferred = proven if policy.prefer_proven else ()
    for rule, key in _PERIODS.items():
        count: int | None = getattr(policy, rule)
        periods = [key(snapshot.time.astimezone(timezone)) for snapshot in line]
        wanted += _best_of_each(line, periods, rule, count or 0, preferred)
    if policy.within is not None:
        wanted += [("within", snapshot) for snapshot in line if line[0].time - snapshot.time < policy.within]
    wanted += [("proven", found) for found in [one for one in line if one.id in proven][: policy.proven or 0]]
    ids = {snapshot.id for _, snapshot in wanted}
    yield from wanted
    yield from (("at least", snapshot) for snapshot in line[: policy.at_least] if snapshot.id not in ids)


def _best_of_each(
    line: Sequence[S], periods: Sequence[str], rule: str, count: int, preferred: Collection[str]
) -> Iterator[tuple[str, S]]:
    """The newest of each of the newest periods, or the newest preferred one if there is any."""
    found: dict[str, list[S]] = {}
    for snapshot, period in zip(line, periods, strict=True):
        found.setdefault(period, []).append(snapshot)
    for period, of_it in islice(found.items(), count):
        best = next((snapshot for snapshot in of_it if snapshot.id in preferred), of_it[0])
        yield f"{rule} {period}{'' if best is of_it[0] else ', proven'}", best


def _week(time: datetime) -> str:
    year, week, _ = time.isocalendar()
    return f"{year:04}-W{week:02}"


_PERIODS: dict[str, Callable[[datetime], str]] = {
    "hourly": lambda time: f"{time:%Y-%m-%d %H}h{time:%z}",
    "daily": lambda time: f"{time:%Y-%m-%d}",
    "weekly": _week,
    "monthly": lambda time: f"{time:%Y-%m}",
    "yearly": lambda time: f"{time:%Y}",
}


def _said(reason: str, volumes: Collection[str], snapshot: Snapshot) -> str:
    """The reason, with the volumes that it is about unless it is about all that the snapshot holds."""
    return reason if len(volumes) == len(set(snapshot.volumes)) else f"{reason} ({', '.join(sorted(volumes))})"
