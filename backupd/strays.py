"""What lies in a repository beside its snapshots, and is not as it was written: drill records, leases, `recover.py`."""

from __future__ import annotations

from collections.abc import Iterator

from backupd import recovery
from backupd.errors import BackupdError, IntegrityError, ObjectNotFound
from backupd.lease import problem_with_lease
from backupd.repository import RecordDoubted, Repository, layout, load_drill


def damaged_strays(repository: Repository) -> Iterator[BackupdError]:
    """What is wrong with each of them. Nothing refers to them, so one that was deleted is not missed."""
    store = repository.store
    for key in [info.key for info in store.list(layout.DRILLS)]:
        try:
            load_drill(repository, key)
        except (ObjectNotFound, RecordDoubted):  # pruned since it was listed; or of no account, which others say
            continue
        except IntegrityError as exc:
            yield exc
    for key in [info.key for info in store.list(layout.LEASES)]:
        if problem := problem_with_lease(store, key):
            yield IntegrityError(problem)
    for problem in recovery.altered(store):
        yield IntegrityError(problem, hint="the next backup writes it anew")
