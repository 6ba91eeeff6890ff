"""Copies from store to store."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from backupd.archive import ChunkerParameters
from backupd.errors import IntegrityError, ObjectExists
from backupd.lease import Lease
from backupd.model import KeepPolicy
from backupd.replicate import Inventory, copy_snapshot, lagging, look
from backupd.repository import Manifest, Repository, keep_drill
from backupd.stores.memory import MemoryStore
from backupd.verify.recording import Look, keep_findings
from backupd.verify.verifier import Finding
from tests.support.drills import record
from tests.support.runtime import BEGIN, CountingIds, Place, RecordingProgress, fill, put, stored


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    fill(place.root())
    return place


def empty(name: str = "copy") -> Repository:
    return Repository.open_or_create(
        MemoryStore(name), threads=1, now=BEGIN, new_id=CountingIds(), chunker=ChunkerParameters()
    )


def copy(place: Place, manifest: Manifest, target: Repository, progress: RecordingProgress) -> None:
    with place.runtime.leases(target.store).shared("copy") as lease:
        copy_snapshot(manifest, place.repository(), target, lease, progress)


def test_lagging_is_what_is_missing(place: Place) -> None:
    manifests = [place.backup().manifest for _ in range(3)]
    lease = Lease(place.stores[0], place.clock, "", None)  # type: ignore[arg-type]  # nothing is written
    holding = look(place.repository(), place.plan, lease, place.clock)
    assert [manifest.id for manifest in holding.manifests] == [manifest.id for manifest in reversed(manifests)]

    def owed(*held: int) -> list[int]:
        mine = Inventory(tuple(manifests[number] for number in sorted(held, reverse=True)))
        return [manifests.index(manifest) for manifest in lagging(mine, [holding, mine])]

    assert owed() == [0, 1, 2]
    assert owed(0) == [1, 2]
    assert owed(1) == [0, 2]
    assert owed(0, 1, 2) == []
    assert look(place.repository(), replace(place.plan, name="weekly"), lease, place.clock).manifests == ()


def test_what_a_store_keeps_by_its_own_drills(place: Place) -> None:
    """As prune will see it, so that nothing is copied to be deleted."""
    manifests = [place.backup().manifest for _ in range(2)]
    place.clock.time += timedelta(days=1)
    manifests.append(place.backup().manifest)
    lease = Lease(place.stores[0], place.clock, "", None)  # type: ignore[arg-type]  # nothing is written
    holding = look(place.repository(), place.plan, lease, place.clock)
    repository, state = empty(), place.runtime.state
    plan = replace(place.plan, keep={"copy": KeepPolicy(daily=2, prefer_proven=True)})

    def owed() -> list[int]:
        target = replace(look(repository, plan, lease, place.clock, state), manifests=(manifests[0],))
        return [manifests.index(manifest) for manifest in lagging(target, [holding])]

    assert owed() == [1, 2]
    keep_drill(repository, record(snapshot=manifests[0].id), state)
    assert owed() == [2]


def test_what_a_store_does_not_keep_is_not_brought_back(place: Place) -> None:
    manifests = [place.backup().manifest for _ in range(4)]
    lease = Lease(place.stores[0], place.clock, "", None)  # type: ignore[arg-type]  # nothing is written
    holding = look(place.repository(), place.plan, lease, place.clock)
    plan = replace(place.plan, keep={"copy": KeepPolicy(last=2)})

    def owed(*held: int) -> list[int]:
        target = replace(look(empty(), plan, lease, place.clock), manifests=tuple(manifests[n] for n in held))
        return [manifests.index(manifest) for manifest in lagging(target, [holding])]

    assert owed() == [2, 3]
    assert owed(2) == [3]
    assert owed(3) == [2]
    assert owed(3, 2) == []


def test_what_is_damaged_takes_no_place(place: Place) -> None:
    """In the target, and in all stores that a copy could be made from."""
    manifests = [place.backup().manifest for _ in range(4)]
    lease = Lease(place.stores[0], place.clock, "", None)  # type: ignore[arg-type]  # nothing is written
    plan = replace(place.plan, keep={"copy": KeepPolicy(last=2)})

    def owed(held: list[int], *damaged: tuple[Repository | None, int]) -> list[int]:
        target = empty()
        for repository, number in [(target if at is None else at, number) for at, number in damaged]:
            found = Finding(manifests[number].id, "data", problem="gone")
            keep_findings(repository, manifests[number], [found], Look(place.clock.now(), "sizes"), place.runtime)
        mine = replace(look(target, plan, lease, place.clock), manifests=tuple(manifests[n] for n in held))
        holding = look(place.repository(), place.plan, lease, place.clock)
        return [manifests.index(manifest) for manifest in lagging(mine, [holding, mine])]

    assert owed([3]) == [2]
    assert owed([3], (None, 3)) == [1, 2]
    assert owed([3], (None, 2)) == [2], "that one is damaged in a store that does not hold it"
    assert owed([3], (place.repository(), 2)) == [1]


def test_what_is_there_is_not_sent_again(place: Place) -> None:
    manifest = place.backup().manifest
    target = empty()
    copy(place, manifest, target, progress := RecordingProgress())
    sent = progress.advanced
    assert sent == sum(ref.size for ref in manifest.archives[0].objects)
    copy(place, manifest, target, progress)
    assert progress.advanced == sent
    assert progress.open == 0
    assert {key for key in stored(target.store) if key != "backupd.json"} == {
        key for key in stored(place.stores[0]) if key != "backupd.json"
    }


def test_an_incremental_snapshot_brings_all_that_it_needs(place: Place) -> None:
    place.backup()
    (place.root() / "zz").write_text("x")
    later = place.backup().manifest
    target = empty()
    copy(place, later, target, RecordingProgress())
    place.stores = [target.store]
    before = place.prints()
    place.restore(later)
    assert place.prints() == before


def test_another_process_copies_the_same(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = place.backup().manifest
    target = empty()
    content = {key: data for key, data in stored(place.stores[0]).items() if key != "backupd.json"}
    stat, asked = target.store.stat, 0

    def late(key: str):  # type: ignore[no-untyped-def]
        nonlocal asked
        asked += 1
        if asked == len(manifest.archives[0].objects):  # looked everywhere, and then the other one was faster
            found = None
            try:
                found = stat(key)
            finally:
                for other, data in content.items():
                    target.store.put(other, data)
            return found
        return stat(key)

    monkeypatch.setattr(target.store, "stat", late)
    copy(place, manifest, target, RecordingProgress())
    assert target.load(manifest.id) == manifest


def test_damage_is_not_copied(place: Place) -> None:
    manifest = place.backup().manifest
    key = manifest.archives[0].needs[0].key
    data = place.stores[0].read(key)
    put(place.stores[0], key, data[:-1] + bytes([data[-1] ^ 1]))
    target = empty()
    with pytest.raises(IntegrityError):
        copy(place, manifest, target, RecordingProgress())
    assert stored(target.store).keys() == {"backupd.json"}


def test_a_different_manifest_of_that_id(place: Place) -> None:
    manifest = place.backup().manifest
    target = empty()
    target.commit(msgspec.structs.replace(manifest, time=manifest.time + timedelta(1)))
    with pytest.raises(ObjectExists):
        copy(place, manifest, target, RecordingProgress())
