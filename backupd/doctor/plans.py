"""What a configuration leaves out, though it is valid. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from backupd.doctor.result import Result
from backupd.settings import PlanSettings, S3StoreSettings, Settings


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
