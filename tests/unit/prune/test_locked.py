"""Stores that lock what they hold: what prune leaves, and what backups and prunes keep locked."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from backupd.errors import StoreDenied
from backupd.immutability import extend_locks, keep_locked
from backupd.locking import locks_of
from backupd.model import KeepPolicy, LockPolicy
from backupd.prune.outline import Outline, outline
from backupd.replicate import Holding
from backupd.repository import layout
from backupd.retention import kept_ids
from backupd.stores.memory import MemoryLocks, MemoryStore
from backupd.verify.recording import Look, keep_findings
from backupd.verify.verifier import Finding
from tests.support.pruning import DAY, KEEP, a_day_later, check_all_that_is_listed, request, run_prune, with_history
from tests.support.runtime import BEGIN, Place, TickingClock
from tests.support.s3 import UNLOCKED

POLICY = LockPolicy("compliance", 8 * DAY)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A history whose objects were locked when they were written, for ten days."""
    place = with_history(tmp_path)
    old = place.stores[0]
    assert isinstance(old, MemoryStore)
    store = MemoryStore("one", place.clock, POLICY, UNLOCKED)
    store._objects.update(old._objects)
    store._locked.update({key: POLICY.until(modified) for key, (_, modified) in old._objects.items()})
    place.stores = [store]
    return place


def ends(place: Place) -> dict[str, object]:
    locks = locks_of(place.stores[0])
    assert locks is not None
    return {info.key: locks.until(info.key) for info in place.stores[0].list()}


def outlined(place: Place) -> Outline:
    return outline(place.repository(), request(), place.clock.now(), place.clock.now())


def test_what_is_locked_stays_whole_and_says_until_when(place: Place) -> None:
    before = check_all_that_is_listed(place.stores[0])
    found = outlined(place)
    assert found.waiting
    assert found.removed == []
    for manifest in found.waiting:
        keys = {layout.snapshot(manifest.id), *(ref.key for archive in manifest.archives for ref in archive.objects)}
        assert found.held[manifest.id] == max(found.locked[key] for key in keys if key in found.locked)
    pruned = run_prune(place)
    assert pruned.snapshots == ()
    assert pruned.left == ()
    assert check_all_that_is_listed(place.stores[0]) == before


def test_what_is_no_longer_locked_goes_beside_it(place: Place) -> None:
    held = sorted(outlined(place).held.values())
    place.clock.time = held[0] + timedelta(seconds=1)
    found = outlined(place)
    assert found.removed
    assert found.waiting
    assert set(run_prune(place).snapshots) == {manifest.id for manifest in found.removed}
    check_all_that_is_listed(place.stores[0])


def test_it_goes_when_its_lock_has_ended(place: Place) -> None:
    waiting = outlined(place)
    last = max(waiting.held.values())
    place.clock.time = last + timedelta(seconds=1)
    pruned = run_prune(place)
    assert set(pruned.snapshots) == set(waiting.held)
    kept = check_all_that_is_listed(place.stores[0])
    assert set(kept) == {manifest.id for manifest in waiting.kept}
    assert not {key for key in waiting.locked if key in ends(place)}


def test_a_named_snapshot_that_is_locked_stays(place: Place) -> None:
    oldest = check_all_that_is_listed(place.stores[0])[-1]
    outlines: list[Outline] = []
    pruned = run_prune(place, request(None, oldest), outlines=outlines)
    assert oldest in outlines[0].held
    assert pruned.snapshots == ()


def test_prune_extends_the_locks_of_what_the_rules_keep_and_of_nothing_else(place: Place) -> None:
    place.clock.time += 3 * DAY
    before = ends(place)
    found = outlined(place)
    pruned = run_prune(place)
    after = ends(place)
    needed = {ref.key for manifest in found.kept for archive in manifest.archives for ref in archive.objects}
    needed |= {layout.snapshot(manifest.id) for manifest in found.kept} | {layout.CONFIG, "recover.py", "RECOVERY.md"}
    assert pruned.renewed == len(needed)
    for key, end in after.items():
        if key in needed:
            assert end >= place.clock.time + POLICY.duration, key  # type: ignore[operator]
        else:
            assert end == before[key] or before[key] is None, key
    assert run_prune(place).renewed == 0


@pytest.mark.parametrize("asked", [{"plan": "nightly"}, {"ids": frozenset(["0" * 16])}])
def test_a_prune_of_a_part_extends_nothing(place: Place, asked: dict[str, object]) -> None:
    place.clock.time += 3 * DAY
    assert run_prune(place, replace(request(), **asked)).renewed == 0


def test_a_backup_extends_what_it_builds_upon(place: Place) -> None:
    """Also archives of snapshots that nobody wants any more, as long as one that is wanted needs them."""
    for day in range(6, 12):
        a_day_later(place, day)
        result = place.backup()
        assert result.complete
        locks = ends(place)
        for archive in result.manifest.archives:
            for ref in archive.objects:
                assert locks[ref.key] >= place.clock.time + POLICY.duration - timedelta(minutes=1), ref.key  # type: ignore[operator]


def test_what_is_damaged_or_lacking_takes_nobodys_place(place: Place) -> None:
    """Prune keeps the two before it: their locks must not end."""
    repository = place.repository()
    damaged, *others = repository.snapshots()[0]
    finding = Finding(damaged.id, damaged.archives[0].volume, problem="spoilt", kind="data")
    keep_findings(repository, damaged, [finding], Look(place.clock.time, "data", 1.0), place.runtime)
    place.clock.time += 3 * DAY
    lacking = msgspec.structs.replace(damaged, id="f" * 16, time=place.clock.time)
    wanted = partial(kept_ids, policy=KEEP, now=place.clock.time, timezone="UTC")
    with place.runtime.leases(place.stores[0]).shared("backup") as lease:
        holding = Holding((damaged, *others), wanted, repository=repository, lease=lease)
        elsewhere = Holding((lacking, damaged, *others), repository=repository, lease=lease)
        assert keep_locked(holding, [holding, elsewhere], place.clock.time) is None
    kept = outlined(place).kept
    assert {damaged.id, *(manifest.id for manifest in others[:2])} <= {manifest.id for manifest in kept}
    locks = ends(place)
    for manifest in (damaged, *others[:2]):
        for archive in manifest.archives:
            for key in (layout.snapshot(manifest.id), *(ref.key for ref in archive.objects)):
                assert locks[key] >= place.clock.time + POLICY.duration, key  # type: ignore[operator]


def test_a_lock_is_renewed_once_in_a_quarter_of_its_time(tmp_path: Path) -> None:
    clock = TickingClock(BEGIN)
    place = Place(tmp_path, stores=[MemoryStore("one", clock, LockPolicy("governance", 4 * DAY), UNLOCKED)])
    place.clock, place.runtime = clock, replace(place.runtime, clock=clock)
    (place.root()).mkdir(parents=True)
    (place.root() / "x").write_bytes(b"x")
    manifest = place.backup().manifest
    renewed = []
    for _ in range(24):
        clock.time += timedelta(hours=4)
        renewed.append(extend_locks(place.repository(), [manifest], clock.time).renewed)
    assert sum(1 for count in renewed if count) in {3, 4}  # in four days, each a quarter of four
    assert max(renewed) == len([ref for archive in manifest.archives for ref in archive.objects]) + 4


def test_a_refused_extension_is_told_and_the_snapshot_is_there(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: MemoryLocks, key: str, now: object) -> bool:
        raise StoreDenied(f"no lock for {key}")

    monkeypatch.setattr(MemoryLocks, "extend", refuse)
    result = place.backup()
    assert not result.complete
    assert "could not be extended" in result.store_failures["one"]
    assert result.manifest.id in check_all_that_is_listed(place.stores[0])
    pruned = run_prune(place, request(KeepPolicy(last=100)))
    assert isinstance(pruned.unlocked, StoreDenied)
