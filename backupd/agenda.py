"""What the configuration says is to be done by itself: when next, and what was missed. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Protocol
from zoneinfo import ZoneInfo

from msgspec import Struct

from backupd.history import RunKind
from backupd.settings import Settings
from backupd.settings.cron import parse_schedule
from backupd.settings.schedules import Overlap


class Times(Protocol):
    """When something is due; see Cron."""

    def after(self, moment: datetime, zone: ZoneInfo) -> datetime:
        """The first time after that moment, in UTC."""
        ...

    def before(self, moment: datetime, zone: ZoneInfo) -> datetime:
        """The last time at or before that moment, in UTC."""
        ...


class Entry(Struct, frozen=True):
    """One schedule: of a plan's backups, drills or verifications, or of pruning, which is of no plan.

    Each run begins up to `jitter_seconds` after its time.
    """

    kind: RunKind
    plan: str | None
    schedule: str
    timezone: str
    times: Times
    jitter_seconds: float = 0
    catch_up: bool = True
    overlap: Overlap = "wait"

    @property
    def key(self) -> str:
        """What it is called: `backup of nightly`, `prune`."""
        return called(self.kind, self.plan)

    def next(self, after: datetime) -> datetime:
        """When it is due next, jitter not counted."""
        return self.times.after(after, ZoneInfo(self.timezone))

    def missed(self, last: datetime | None, known_since: datetime, now: datetime) -> datetime | None:
        """When it should have run last, if it has not since; `last` is when it ran, as far as is known.

        What never ran can't have missed what was before `known_since`.
        """
        due = self.times.before(now, ZoneInfo(self.timezone))
        return due if (last or known_since) < due else None


def called(kind: RunKind, plan: str | None) -> str:
    """A run in words."""
    return f"{kind} of {plan}" if plan else kind


def agenda(settings: Settings) -> list[Entry]:
    """All schedules, in the order of the configuration, pruning last."""
    return list(_entries(settings))


def _entries(settings: Settings) -> Iterator[Entry]:
    for name, plan in settings.plans.items():
        schedules: tuple[tuple[RunKind, str | None], ...] = (
            ("backup", plan.schedule),
            ("verify", plan.verify.schedule),
            ("drill", plan.drill.schedule),
        )
        for kind, schedule in schedules:
            if schedule is not None:
                yield Entry(
                    kind=kind,
                    plan=name,
                    schedule=schedule,
                    timezone=plan.timezone or "UTC",
                    times=parse_schedule(schedule),
                    jitter_seconds=plan.jitter.total_seconds() if plan.jitter else 0,
                    catch_up=plan.catch_up,
                    overlap=plan.overlap,
                )
    prune = settings.prune
    if prune.schedule is not None:
        yield Entry(
            kind="prune",
            plan=None,
            schedule=prune.schedule,
            timezone=prune.timezone or "UTC",
            times=parse_schedule(prune.schedule),
            jitter_seconds=prune.jitter.total_seconds() if prune.jitter else 0,
        )
