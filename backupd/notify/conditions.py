"""Facts into conditions: what of sizes, ages and free space is not as it should be. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Literal

from msgspec import Struct, field

from backupd import words

AlertName = Literal["size", "age", "space"]

_CLEAR = 1.1
"""Free space has to be that much above its limit until an alert ends, lest it comes and goes."""


class Space(Struct, frozen=True):
    """Bytes of a file system: free for this user, and all."""

    free: int
    total: int


class Facts(Struct, frozen=True):
    """What is known. `sizes`: plain bytes by plan and volume, newest first. `good`: when a plan last did all it should.

    `known` is since when a plan is watched, for those that never did. `space` None: it could not be asked.
    """

    sizes: Mapping[tuple[str, str], Sequence[int]] = field(default_factory=dict)
    good: Mapping[str, datetime | None] = field(default_factory=dict)
    known: Mapping[str, datetime] = field(default_factory=dict)
    space: Mapping[str, Space | None] = field(default_factory=dict)


class SizeLimits(Struct, frozen=True):
    """Shares of the usual size: 0.5 is half as much again, or half gone. None: no limit."""

    shrink: float | None = 0.5
    grow: float | None = 2.0


class Limits(Struct, frozen=True):
    """What is still right. `sizes` by plan and volume; volumes below `smallest_bytes`, then and now, have no limits.

    The usual size is the median of `compare_with` runs before the newest. `ages` by plan; None: no limit.
    """

    sizes: Mapping[tuple[str, str], SizeLimits] = field(default_factory=dict)
    other_sizes: SizeLimits = field(default_factory=SizeLimits)
    compare_with: int = 5
    smallest_bytes: int = 10 * 1024**2
    ages: Mapping[str, timedelta] = field(default_factory=dict)
    free_bytes: int = 0
    free_share: float = 0.05


class Condition(Struct, frozen=True):
    """One thing that is watched. `unknown` and `nearly` (well, but barely) leave an alert as it is."""

    alert: AlertName
    subject: str
    state: Literal["good", "bad", "unknown", "nearly"]
    text: str
    plan: str | None = None

    @property
    def key(self) -> str:
        """`space/store local`: what it is remembered by."""
        return f"{self.alert}/{self.subject}"


def judge(facts: Facts, limits: Limits, now: datetime) -> list[Condition]:
    """Every condition that the facts tell of."""
    return [*_sizes(facts, limits), *_ages(facts, limits, now), *_spaces(facts, limits)]


def _sizes(facts: Facts, limits: Limits) -> Iterator[Condition]:
    for (plan, volume), sizes in facts.sizes.items():
        before = sizes[1 : 1 + limits.compare_with]
        if not before:
            continue
        usual, size = _median(before), sizes[0]
        limit = limits.sizes.get((plan, volume), limits.other_sizes)
        small = max(usual, size) < limits.smallest_bytes
        shrunk = limit.shrink is not None and size < usual * (1 - limit.shrink)
        grown = limit.grow is not None and size > usual * (1 + limit.grow)
        sizes_text = f"{words.size(size)}, usually {words.size(usual)}"
        if (shrunk or grown) and not small:
            text = f"volume {volume} of plan {plan} has {'shrunk' if shrunk else 'grown'}: {sizes_text}"
            yield Condition("size", f"{plan}/{volume}", "bad", text, plan)
        else:
            text = f"volume {volume} of plan {plan} has a usual size: {sizes_text}"
            yield Condition("size", f"{plan}/{volume}", "good", text, plan)


def _ages(facts: Facts, limits: Limits, now: datetime) -> Iterator[Condition]:
    for plan, limit in limits.ages.items():
        good = facts.good.get(plan)
        since = good or facts.known.get(plan)
        if since is None:
            continue
        done = f"plan {plan} last succeeded {words.moment(good)}" if good else f"plan {plan} has not succeeded yet"
        if now - since > limit:
            ago = words.duration(now - since)
            yield Condition("age", plan, "bad", f"no success for {ago}, at most {words.duration(limit)}: {done}", plan)
        else:
            yield Condition("age", plan, "good", done, plan)


def _spaces(facts: Facts, limits: Limits) -> Iterator[Condition]:
    for place, space in facts.space.items():
        if space is None:
            yield Condition("space", place, "unknown", f"{place}: free space is not known")
            continue
        limit = max(limits.free_bytes, space.total * limits.free_share)
        text = f"{place}: {words.size(space.free)} free of {words.size(space.total)} ({space.free / space.total:.0%})"
        if space.free < limit:
            yield Condition("space", place, "bad", f"{text}, at least {words.size(limit)} wanted")
        else:
            yield Condition("space", place, "nearly" if space.free < limit * _CLEAR else "good", text)


def _median(values: Sequence[int]) -> float:
    """As statistics.median, whose module takes longer to import than all of this package."""
    ordered, half = sorted(values), len(values) // 2
    return ordered[half] if len(values) % 2 else (ordered[half - 1] + ordered[half]) / 2
