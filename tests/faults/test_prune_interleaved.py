"""Prune and backup at once: one runs whole before any operation of the other, with and without a lapse of leases.

What is listed is whole at every moment, and a later prune leaves nothing that no snapshot needs.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from backupd.backup import back_up
from backupd.errors import LeaseLost, LockedError, ObjectNotFound
from backupd.lease import DURATION
from backupd.stores.memory import MemoryStore
from tests.support.hooked_store import HookedStore
from tests.support.pruning import (
    DAY,
    KEEP,
    a_day_later,
    another,
    check_all_that_is_listed,
    copied,
    run_prune,
    unreferenced,
    with_history,
)
from tests.support.runtime import Place, stored

Act = Callable[[Place], object]
PAUSES = {"no pause": 0 * DAY, "lease over": 3 * DURATION, "lease and grace over": 2 * DAY}


@pytest.fixture(params=PAUSES, ids=list(PAUSES))
def pause(request: pytest.FixtureRequest):  # type: ignore[no-untyped-def]
    return PAUSES[request.param]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = with_history(tmp_path)
    a_day_later(place, 100)
    return place


def backup(place: Place) -> None:
    plan = replace(place.plan, keep=dict.fromkeys((store.name for store in place.stores), KEEP))
    back_up(plan, place.runtime, place.stores)


def tried(act: Act, place: Place) -> str:
    """What came of it: nothing else than success or being locked out may."""
    try:
        act(place)
    except (LeaseLost, ObjectNotFound):  # the latter: what was just written has been cleared away
        return "lost"
    except LockedError:
        return "locked"
    return "done"


def _hook(act: Act, place: Place, outcomes: list[str]) -> Callable[[], None]:
    return lambda: outcomes.append(tried(act, place))


def interleavings(
    place: Place, slow: Act, fast: Act, which: int = 0, *, deletes: bool = True
) -> Iterator[tuple[str, str]]:
    """`slow`, with `fast` before its first, second, … operation on a store; what came of the two."""
    beginning = [stored(store) for store in place.stores]
    time = place.clock.time
    names = [store.name for store in place.stores]
    for number in range(1, 400):
        place.clock.time = time
        memories = [MemoryStore(name, place.clock) for name in names]
        for memory, content in zip(memories, beginning, strict=True):
            place.clock.time = time - 3 * DAY  # all of it is past the grace period
            for key, data in content.items():
                memory.put(key, data)
        place.clock.time = time
        shutil.rmtree(place.base / "elsewhere", ignore_errors=True)
        place.stores = list(memories)
        other = another(place)
        outcomes: list[str] = []
        hooked = HookedStore(memories[which], number, _hook(fast, other, outcomes), deletes=deletes)
        place.stores = [hooked if each == which else memory for each, memory in enumerate(memories)]
        slow_came_to = tried(slow, place)
        place.stores = list(memories)
        for memory in memories:
            check_all_that_is_listed(memory)
        if not hooked.hooked:
            assert number > 10
            assert slow_came_to == "done"
            return
        yield slow_came_to, outcomes[0]
        place.clock.time += 2 * DAY
        for each, memory in enumerate(memories):
            run_prune(other, number=each)
            assert unreferenced(memory) == []
            assert check_all_that_is_listed(memory)
    pytest.fail("it never came to an end")


def after(pause, act: Act) -> Act:  # type: ignore[no-untyped-def]
    def paused(place: Place) -> object:
        place.clock.time += pause
        return act(place)

    return paused


def test_prune_inside_backup(place: Place, pause) -> None:  # type: ignore[no-untyped-def]
    came_to = list(interleavings(place, backup, after(pause, run_prune)))
    assert ("done", "done") in came_to, "before the lease is written"
    if pause:
        assert ("lost", "done") in came_to
    else:
        assert ("done", "locked") in came_to
        assert {slow for slow, _ in came_to} == {"done"}, "without a pause prune always gives way"


def test_backup_inside_prune(place: Place, pause) -> None:  # type: ignore[no-untyped-def]
    came_to = list(interleavings(place, run_prune, after(pause, backup)))
    assert ("done", "done") in came_to
    assert ("lost", "done") in came_to if pause else ("done", "locked") in came_to


def test_prune_inside_prune(place: Place, pause) -> None:  # type: ignore[no-untyped-def]
    came_to = list(interleavings(place, run_prune, after(pause, run_prune)))
    assert ("done", "done") in came_to
    assert ("lost", "done") in came_to if pause else ("done", "locked") in came_to


def test_prune_inside_copying(place: Place, pause) -> None:  # type: ignore[no-untyped-def]
    """The store that is pruned is the one that is copied to, and holds parts of what is owed to it."""
    behind = copied(place.stores[0], place.clock)
    newest = check_all_that_is_listed(behind)[:2]
    for snapshot in newest:
        behind.delete(f"snapshots/{snapshot}.json")  # its objects stay: garbage that a copy takes for its own
    behind.name = "two"
    place.stores.append(behind)
    came_to = list(interleavings(place, backup, after(pause, lambda other: run_prune(other, number=1)), which=1))
    assert ("done", "done") in came_to
    assert {slow for slow, _ in came_to} == {"done"}, "the store that was passed over is caught up later"


def test_copying_inside_prune(place: Place, pause) -> None:  # type: ignore[no-untyped-def]
    behind = copied(place.stores[0], place.clock)
    newest = check_all_that_is_listed(behind)[:1]
    for snapshot in newest:
        behind.delete(f"snapshots/{snapshot}.json")
    behind.name = "two"
    place.stores.append(behind)
    # A delete that is on its way can't be called back: docs/decisions/0020-leases.md, "What remains".
    came_to = list(
        interleavings(place, lambda mine: run_prune(mine, number=1), after(pause, backup), which=1, deletes=not pause)
    )
    assert ("done", "done") in came_to
    if pause:
        assert ("lost", "done") in came_to
