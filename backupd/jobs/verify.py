"""A scheduled verification as a whole run."""

from __future__ import annotations

from random import SystemRandom

from backupd.engine import MountedEngine
from backupd.errors import NoRepository
from backupd.jobs.site import Site
from backupd.runs import Draft
from backupd.verify.operation import verify
from backupd.verify.result import Verified, VerifyRequest

_NOTED = 20


def run_verify(site: Site, plan: str, percentage: float, draft: Draft) -> Verified:
    """Verify a plan's snapshots in each of its stores. What there is no key for is hashed as it is stored.

    RunSkipped if all stores answered, none has a snapshot of the plan yet, and nothing is wrong.
    """
    request = VerifyRequest(plan=plan, fraction=percentage / 100, keyless=site.identity is None)
    stores = site.stores(site.settings.plan(plan).stores)
    try:
        verified = verify(stores, request, site.runtime(MountedEngine()), SystemRandom())
    except NoRepository as exc:
        raise draft.too_early(str(exc)) from exc
    if verified.empty:
        raise draft.too_early(f"plan {plan} has no snapshot")
    note_verified(draft, verified)
    for problem in verified.problems:
        site.warn(problem)
    return verified


def note_verified(draft: Draft, verified: Verified) -> None:
    """Keep with the run what was found."""
    draft.set(stores=[one.store for one in verified.stores if not one.absent])
    for text in verified.problems[:_NOTED]:
        draft.note(text)
    for one in verified.stores:
        if one.error is not None:
            draft.note(f"store {one.store} was not checked to the end: {one.error}")
