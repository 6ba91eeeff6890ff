"""What a configuration leaves out, though it is valid. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

from backupd.doctor.result import Result
from backupd.settings import PlanSettings, S3StoreSettings, Settings
from backupd.settings.cron import parse_schedule
from backupd.words import duration

_ANY_MONDAY = datetime(2024, 1, 1, tzinfo=UTC)
_WEEK = timedelta(days=8)
_MOST_RUNS = 300


def look_at_plan(name: str, plan: PlanSettings, settings: Settings) -> Iterator[Result]:
    """Schedule, time zone, retention, and where its snapshots go."""
    subject = f"plan {name}"
    if plan.schedule is None:
        yield Result("warning", subject, "has no schedule: it runs by hand only", f"set plans.{name}.schedule")
    else:
        zone = plan.timezone or "UTC"
        yield Result("ok", subject, f"runs at {plan.schedule!r}, {zone} time")
        if plan.timezone is None:
            yield Result("note", subject, "no time zone is set, so its schedule is in UTC", f"plans.{name}.timezone")
    unlimited = [store for store in plan.stores if plan.keep_in(store) is None]
    if unlimited:
        advice = f"set plans.{name}.keep, such as {{daily: 7, weekly: 4, monthly: 6}}"
        yield Result("warning", subject, f"keeps every snapshot for ever in {', '.join(unlimited)}", advice)
    if not any(isinstance(settings.stores[store], S3StoreSettings) for store in plan.stores):
        yield Result(
            "warning",
            subject,
            f"its snapshots are in {', '.join(plan.stores)} only: what takes this machine takes them",
            "add a store that is elsewhere, of `type: s3`, or a directory that is mounted from another machine",
        )
    if plan.drill.schedule is None:
        advice = f"set plans.{name}.drill.schedule, or run `backupd drill` now and then"
        yield Result("note", subject, "is not drilled by itself: nothing proves that it comes back", advice)
    if plan.verify.schedule is None:
        advice = f"set plans.{name}.verify.schedule, or run `backupd verify` now and then"
        yield Result("note", subject, "is not verified by itself: damage shows when it is restored", advice)
    yield from _max_age(name, plan)


def _max_age(name: str, plan: PlanSettings) -> Iterator[Result]:
    """Whether anybody is told once backups stop, and not before that."""
    subject, pause = f"plan {name}", _longest_pause(plan)
    if pause is None:
        return
    if plan.max_age is None:
        advice = f"set plans.{name}.max_age to some more than {duration(pause)}"
        yield Result("note", subject, "has no max_age: that it no longer succeeds is no alert", advice)
    elif plan.max_age <= pause:
        text = f"its max_age of {duration(plan.max_age)} is over before the next run: {duration(pause)} lie between two"
        yield Result("warning", subject, text, f"set plans.{name}.max_age to some more than that")


def _longest_pause(plan: PlanSettings) -> timedelta | None:
    """The longest time between two runs, jitter included, in a week or in 300 runs; None without a schedule."""
    if plan.schedule is None:
        return None
    times, zone = parse_schedule(plan.schedule), ZoneInfo(plan.timezone or "UTC")
    fires = [times.after(_ANY_MONDAY, zone)]
    while len(fires) < _MOST_RUNS and (fires[-1] - fires[0] < _WEEK or len(fires) <= 12):
        fires.append(times.after(fires[-1], zone))
    return max(later - earlier for earlier, later in pairwise(fires)) + (plan.jitter or timedelta())


def look_at_upkeep(settings: Settings) -> Iterator[Result]:
    """Whether what is no longer wanted goes, and whether anybody hears of what goes wrong."""
    keeping = [name for name, plan in settings.plans.items() if any(map(plan.keep_in, plan.stores))]
    if keeping and settings.prune.schedule is None:
        text = f"has no schedule: what {', '.join(keeping)} no longer keeps stays until somebody prunes"
        yield Result("warning", "prune", text, "set prune.schedule, or run `backupd prune` now and then")
    if settings.notifications.targets:
        yield Result("ok", "notifications", f"are sent to {', '.join(settings.notifications.targets)}")
    elif not any(plan.ping.urls() for plan in settings.plans.values()):
        advice = "name somebody in notifications.targets, or a dead-man ping in plans.NAME.ping (docs/monitoring.md)"
        yield Result("note", "notifications", "nobody is told of failures, but by the log and /metrics", advice)


def look_for_leftovers(settings: Settings) -> Iterator[Result]:
    """Stores and volumes that no plan uses. Labels add volumes to plans, but none that the configuration names."""
    for store in settings.stores:
        if not any(store in plan.stores for plan in settings.plans.values()):
            advice = "name it in a plan's `stores`, or take it out"
            yield Result("warning", f"store {store}", "is in no plan: nothing is written to it", advice)
    for volume in settings.volumes:
        if not any(volume in plan.volumes for plan in settings.plans.values()):
            advice = "name it in a plan's `volumes`, or take it out"
            yield Result("warning", f"volume {volume}", "is in no plan: it is not backed up", advice)


def look_at_encryption(settings: Settings) -> Iterator[Result]:
    """Whether what leaves this machine can be read by whoever gets at it."""
    away = [name for name, store in settings.stores.items() if isinstance(store, S3StoreSettings)]
    keys = len(settings.encryption.recipients)
    if keys:
        yield Result("ok", "encryption", f"new snapshots are for {keys} recipient{'' if keys == 1 else 's'}")
        if keys == 1:
            advice = "add a second recipient, whose secret key lies elsewhere"
            yield Result("note", "encryption", "one lost key loses everything", advice)
    elif away:
        advice = "`backupd keygen`, then `encryption: {recipients: [age1…]}`"
        yield Result("warning", "encryption", f"is off: who can read {', '.join(away)} can read all data", advice)
    else:
        yield Result("note", "encryption", "is off")
