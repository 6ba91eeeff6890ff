"""What the stores hold: snapshots in time, nothing damaged, nothing owed, nobody in the way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from msgspec import Struct

from backupd.doctor.result import Result
from backupd.doctor.stores import open_repository
from backupd.known import KnownRepositories
from backupd.lease import standing
from backupd.model import Plan
from backupd.ports import Store
from backupd.replicate import Inventory, lagging, spoilt_in, wanted_in
from backupd.repository import Manifest, Repository
from backupd.runtime import Runtime
from backupd.settings import PlanSettings, Settings
from backupd.settings.cron import last_fire

_ADVICE = "is the daemon running? `backupd backup {}` takes one now"

_RUN_TAKES = timedelta(hours=2)
"""How long after its time, jitter aside, a run may not be there yet without a word."""


class Held(Struct, frozen=True):
    """What a store was seen to hold."""

    store: str
    manifests: tuple[Manifest, ...]
    repository: Repository | None = None


def look_at_repository(store: Store, runtime: Runtime, seen: list[Held]) -> Iterator[Result]:
    """Whether it opens, is the one that it was, and has good manifests; what it holds is added to `seen`."""
    subject = f"store {store.name}"
    opened = open_repository(store, runtime)
    known = KnownRepositories(runtime.state)
    if isinstance(opened, Result):
        seen.append(Held(store.name, ()))
        known.check(store.name, None)  # one that was there and is gone is no note
        yield opened
        return
    known.check(store.name, opened.config.id)
    manifests, damage = opened.snapshots()
    seen.append(Held(store.name, tuple(manifests), opened))
    for problem in damage:
        yield Result("error", subject, str(problem), problem.hint)
    newest = f", the newest of {manifests[0].time:%Y-%m-%d %H:%M} UTC" if manifests else ""
    count = f"{len(manifests)} snapshot{'' if len(manifests) == 1 else 's'}"
    yield Result("ok", subject, f"repository {opened.config.id}, format {opened.config.format}: {count}{newest}")
    yield from _leases(store, runtime)
    yield from _signers(subject, manifests, runtime)


def _leases(store: Store, runtime: Runtime) -> Iterator[Result]:
    for lease in standing(store):
        if lease.expired(None, runtime.clock.now()):
            text = f"a lease that has run out: {lease}"
            yield Result("note", f"store {store.name}", text, "the next backup or prune takes it away")
        else:
            yield Result("note", f"store {store.name}", f"at work: {lease}")


def _signers(subject: str, manifests: Sequence[Manifest], runtime: Runtime) -> Iterator[Result]:
    others = sorted({manifest.host for manifest in manifests} - {runtime.host})
    if others and runtime.security.trust is not None:
        text = f"it also has snapshots of {', '.join(others)}"
        yield Result("note", subject, text, "machines that share a repository name each other in trust.signers")


def look_at_ages(settings: Settings, runtime: Runtime, seen: Sequence[Held]) -> Iterator[Result]:
    """For each plan and store: is the newest snapshot the one that its schedule calls for, and is anything owed?"""
    now, machine = runtime.clock.now(), runtime.security.machine()
    for name, plan in settings.plans.items():
        held = {one.store: [found for found in one.manifests if _is_of(found, name)] for one in seen}
        for store in plan.stores:
            if store in held and plan.schedule is not None:
                own = [one for one in held[store] if one.is_run_of(name, machine)]
                yield _age(name, store, plan, own, now) if own else _none_yet(name, store, held[store])
        yield from _debts(settings.plan(name), [one for one in seen if one.store in plan.stores], runtime)


def _is_of(manifest: Manifest, plan: str) -> bool:
    return manifest.plan == plan and manifest.reason == "backup"


def _none_yet(name: str, store: str, others: Sequence[Manifest]) -> Result:
    """That no snapshot counts as this machine's run of the plan, and what there is: of parts, or with another key."""
    subject, advice = f"plan {name} in {store}", _ADVICE.format(name)
    if not others:
        return Result("warning", subject, "has no snapshot yet", advice)
    newest = f"the newest of all is of {others[0].time:%Y-%m-%d %H:%M} UTC"
    return Result("note", subject, f"has none of the whole plan by this machine yet; {newest}", advice)


def _age(name: str, store: str, plan: PlanSettings, manifests: Sequence[Manifest], now: datetime) -> Result:
    subject = f"plan {name} in {store}"
    assert plan.schedule is not None
    zone = ZoneInfo(plan.timezone) if plan.timezone else UTC
    advice = _ADVICE.format(name)
    newest = manifests[0]
    due = last_fire(plan.schedule, now - _RUN_TAKES - (plan.jitter or timedelta()), zone)
    before = last_fire(plan.schedule, due - timedelta(minutes=1), zone)
    age = f"the newest snapshot is of {newest.time:%Y-%m-%d %H:%M} UTC"
    if newest.time < before:
        return Result("error", subject, f"{age}: two runs or more are missing", advice)
    if newest.time < due:
        return Result("warning", subject, f"{age}: the run of {due:%Y-%m-%d %H:%M} is missing", advice)
    if not newest.complete:
        failed = ", ".join(failure.volume for failure in newest.failures if not failure.optional)
        return Result("error", subject, f"{age}, and lacks {failed}", f"`backupd show {newest.short_id}` says why")
    return Result("ok", subject, age)


def _debts(plan: Plan, seen: Sequence[Held], runtime: Runtime) -> Iterator[Result]:
    """Snapshots that one store of the plan has, and that the next backup would copy to another."""
    there = {one.store: _inventory(plan, one, runtime) for one in seen}
    for store, inventory in there.items():
        if owed := len(lagging(inventory, list(there.values()))):
            text = f"lacks {owed} snapshot{'' if owed == 1 else 's'} of plan {plan.name} that another store has"
            yield Result("warning", f"store {store}", text, "the next backup copies them, if the store can be reached")


def _inventory(plan: Plan, one: Held, runtime: Runtime) -> Inventory:
    own = tuple(found for found in one.manifests if found.plan == plan.name)
    wanted = wanted_in(one.store, plan, runtime.clock.now(), one.repository, runtime.state)
    return Inventory(own, wanted, spoilt_in(one.repository) if one.repository is not None else frozenset)
