"""Prune dies at its n-th operation, or the store fails there, for every n.

What is listed is whole, and the next run tidies up.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from backupd.errors import BackupdError, LockedError, StoreDenied, StoreUnavailable
from backupd.stores.memory import MemoryStore
from tests.support.faulty_store import Crash, FaultyStore
from tests.support.pruning import (
    DAY,
    another,
    check_all_that_is_listed,
    copied,
    run_prune,
    unreferenced,
    with_history,
)
from tests.support.runtime import Place, stored

# Name, error, whether the operation was carried out all the same, whether the store is gone from then on.
KINDS: tuple[tuple[str, Callable[[], BaseException], bool, bool], ...] = (
    ("killed before", Crash, False, True),
    ("killed after", Crash, True, True),
    ("away before", lambda: StoreUnavailable("away"), False, False),
    ("away after", lambda: StoreUnavailable("away, but it was done"), True, False),
    ("away for good", lambda: StoreUnavailable("away"), False, True),
)


@pytest.fixture(params=KINDS, ids=[kind[0] for kind in KINDS])
def kind(request: pytest.FixtureRequest):  # type: ignore[no-untyped-def]
    return request.param


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return with_history(tmp_path)


def test_at_every_operation(place: Place, kind) -> None:  # type: ignore[no-untyped-def]
    _, error, after, for_good = kind
    beginning = stored(place.stores[0])
    time = place.clock.time
    held = set(check_all_that_is_listed(place.stores[0]))
    elsewhere = another(place)
    wanted = {"locked": 0, "done": 0}
    locked_by: set[str] = set()
    for number in range(1, 300):
        place.clock.time = time - 3 * DAY
        memory = copied(place.stores[0], place.clock, beginning)
        place.clock.time = time
        faulty = FaultyStore(memory)
        place.stores = [faulty]
        faulty.fail_at(number, error())
        faulty.after, faulty.stays_broken = after, for_good
        try:
            run_prune(place)
        except (BackupdError, Crash):
            assert faulty.failed
        failed = faulty.failed
        faulty.mend()
        left = set(check_all_that_is_listed(memory))
        assert left <= held
        if not failed:
            assert number > 20
            break
        elsewhere.stores = [memory]
        try:  # another host waits for the lease of the one that died …
            run_prune(elsewhere)
            wanted["done"] += 1
        except LockedError as exc:
            wanted["locked"] += 1
            locked_by.add(str(exc).split(" (process")[0])
            run_prune(place)  # … this one knows that it is dead
        assert unreferenced(memory) == []
        assert set(check_all_that_is_listed(memory)) <= left
        after_it = run_prune(place)
        assert after_it.outline.nothing_goes
    else:
        pytest.fail("it never came to an end")
    assert wanted["done"]
    assert locked_by <= {"store one is in use: prune by backupd test on testhost"}
    assert wanted["locked"] > 1 if for_good else wanted["locked"] <= 1, "one lease could not be removed"


def test_the_lease_of_a_dead_host_runs_out(place: Place) -> None:
    faulty = FaultyStore(place.stores[0])
    place.stores = [faulty]
    faulty.fail_at(30, Crash())
    faulty.stays_broken = True
    with pytest.raises(Crash):
        run_prune(place)
    faulty.mend()
    elsewhere = another(place)
    with pytest.raises(LockedError, match="is in use: prune by backupd test on testhost"):
        elsewhere.backup()
    place.clock.time += DAY / 24
    assert elsewhere.backup().complete
    assert not [key for key in stored(faulty.store) if key.startswith("leases/")]


class DenyingStore(FaultyStore):
    """Refuses to delete what begins with a prefix."""

    prefix = ""

    def delete(self, key: str) -> None:
        if key.startswith(self.prefix):
            raise StoreDenied(f"not allowed to delete {key}")
        super().delete(key)


@pytest.mark.parametrize("prefix", ["archives/a", "archives/", "snapshots/", "", "leases/"])
def test_where_deleting_is_denied_the_rest_goes(place: Place, prefix: str) -> None:
    memory = place.stores[0]
    assert isinstance(memory, MemoryStore)
    before = stored(memory)
    denying = DenyingStore(memory)
    denying.prefix = prefix
    place.stores = [denying]
    pruned = run_prune(place)
    assert check_all_that_is_listed(memory)
    after = stored(memory)
    refused = {key for key in before if key in after and key in pruned.left}
    assert refused == set(pruned.left)
    if prefix in ("archives/a", "archives/"):
        assert pruned.snapshots
        assert all(key.startswith(prefix) for key in pruned.left)
        assert pruned.left
    if prefix in ("snapshots/", ""):
        assert pruned.snapshots == ()
        assert len(pruned.left) == len(pruned.outline.removed)
        assert {key for key in before if key.startswith("archives/")} <= after.keys(), "manifests need their objects"
    assert place.backup().complete, "a lease that cannot be deleted says that it is released"
    place.stores = [memory]
    place.clock.time += 2 * DAY
    run_prune(place)
    assert unreferenced(memory) == []
