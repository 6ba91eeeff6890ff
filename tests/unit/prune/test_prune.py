"""What prune removes, what it refuses to touch, and what it says."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from backupd.errors import IntegrityError, LockedError, PruneRefused, RepositoryError, StoreError
from backupd.lease import Leases
from backupd.locking import OldVersions
from backupd.model import KeepPolicy
from backupd.prune.outline import Outline, PruneRequest, outline
from backupd.repository import Manifest, keep_drill, layout
from backupd.repository.documents import encode
from backupd.stores.memory import MemoryStore
from backupd.transfer import import_tar
from tests.support.drills import record
from tests.support.pruning import (
    DAY,
    a_day_later,
    another,
    check_all_that_is_listed,
    request,
    rules,
    run_prune,
    unreferenced,
    with_history,
)
from tests.support.runtime import Place, put, stored


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return with_history(tmp_path)


def manifests(place: Place) -> list[Manifest]:
    return place.repository().snapshots()[0]


def why(found: Outline) -> list[tuple[str, ...]]:
    return [verdict.reasons for verdict in found.verdicts]


def test_the_last_two_of_each_volume_stay(place: Place) -> None:
    before = manifests(place)
    sizes = {key: len(data) for key, data in stored(place.stores[0]).items()}
    pruned = run_prune(place)
    assert [m.id for m in manifests(place)] == [before[0].id, before[1].id, before[2].id]
    assert why(pruned.outline) == [("last",), ("last",), ("last (b)",), (), (), ()], "the last but one had `a` alone"
    assert set(pruned.snapshots) == {m.id for m in before[3:]}
    after = stored(place.stores[0])
    gone = {key: size for key, size in sizes.items() if key not in after and not key.startswith("snapshots/")}
    assert (pruned.objects, pruned.bytes) == (len(gone), sum(gone.values()))
    assert pruned.outline.freed == pruned.bytes > 10_000
    assert unreferenced(place.stores[0]) == []
    check_all_that_is_listed(place.stores[0])
    again = run_prune(place)
    assert again.outline.nothing_goes
    assert again.snapshots == ()


def test_what_a_snapshot_that_stays_was_built_upon_stays(place: Place) -> None:
    run_prune(place, request(KeepPolicy(last=1)))
    newest = manifests(place)[0]
    needed = {ref.key for archive in newest.archives for ref in archive.needs}
    assert any(newest.id not in key for key in needed), "it is an incremental one"
    assert needed <= stored(place.stores[0]).keys()
    restored = place.prints()
    (place.root("a") / "first").write_text("damage")
    place.restore(newest, safety_snapshot=False)
    assert place.prints() == restored


def test_without_a_policy_nothing_goes(place: Place) -> None:
    found = run_prune(place, request(None)).outline
    assert found.nothing_goes
    assert set(why(found)) == {("plan nightly keeps all",)}


def test_a_plan_that_nobody_knows_keeps_its_snapshots(place: Place) -> None:
    found = run_prune(place, PruneRequest(rules(plan="weekly"))).outline
    assert found.nothing_goes
    assert set(why(found)) == {("there is no plan nightly in the configuration",)}


def test_one_plan_only(place: Place) -> None:
    found = run_prune(place, PruneRequest(rules(), plan="weekly")).outline
    assert found.nothing_goes
    assert set(why(found)) == {("of another plan",)}
    assert run_prune(place, PruneRequest(rules(), plan="nightly")).snapshots


def test_safety_snapshots_go_when_they_are_old(place: Place) -> None:
    place.restore(manifests(place)[0])
    safety = manifests(place)[0]
    assert safety.reason == "safety"
    a_day_later(place, 50)
    place.backup()
    assert ("safety snapshot, still young",) in why(run_prune(place).outline)
    place.clock.time += 14 * DAY
    assert safety.id in run_prune(place).snapshots
    assert unreferenced(place.stores[0]) == []


def test_the_newest_of_a_volume_stays_whatever_it_was_taken_for(place: Place) -> None:
    place.restore(manifests(place)[0])
    place.clock.time += 365 * DAY
    found = run_prune(place).outline
    assert found.verdicts[0].snapshot.reason == "safety"
    assert found.verdicts[0].reasons == ("the newest of a, b",)


def test_imports_stay_until_they_are_named(place: Place, tmp_path: Path) -> None:
    import tarfile  # noqa: PLC0415

    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        tar.add(place.root("a"), ".")
    volume = place.runtime.engine.find(place.spec("a"))
    made = import_tar(tmp_path / "x.tar", volume, place.repository(), place.runtime, allow_links=False)
    place.clock.time += 365 * DAY
    place.backup()
    assert ("imported",) in why(run_prune(place).outline)
    assert run_prune(place, request(None, made.id)).snapshots == (made.id,)
    assert unreferenced(place.stores[0]) == []


def test_proven_snapshots_stay(place: Place) -> None:
    policy = replace(KeepPolicy(last=1), proven=1)
    *_, old, oldest = manifests(place)
    for number, manifest in enumerate((old, oldest)):
        keep_drill(place.repository(), record(number, snapshot=manifest.id), place.runtime.state)
    now = place.clock.now()
    found = outline(place.repository(), request(policy), now, now, place.runtime.state)
    assert ("proven",) in why(found)
    run_prune(place, request(policy))
    assert old.id in {manifest.id for manifest in manifests(place)}
    assert oldest.id not in {manifest.id for manifest in manifests(place)}
    keep_drill(place.repository(), record(9, "failed", snapshot=old.id), place.runtime.state)
    run_prune(place, request(policy))
    assert old.id not in {manifest.id for manifest in manifests(place)}, "a later drill took its mark away"


def test_a_dry_look_changes_nothing(place: Place) -> None:
    before = stored(place.stores[0])
    now = place.clock.now()
    found = outline(place.repository(), request(), now, now)
    assert len(found.removed) == 3
    assert found.freed > 10_000
    assert stored(place.stores[0]) == before


def test_garbage_goes_when_it_is_old_by_the_clock_of_the_store(place: Place) -> None:
    store = place.stores[0]
    run_prune(place)
    strays = [
        "archives/a/00000000deadbeef.tar.zst",
        "archives/b/00000000deadbeef.index.zst",
        "probe/0123",
    ]
    for key in strays:
        store.put(key, b"left by a killed backup")
    foreign = ["archives/README.md", "notes/mine", "archives/a/0000beef/x"]
    for key in foreign:
        store.put(key, b"somebody else's")
    young = run_prune(place)
    assert young.outline.young == 2
    assert set(strays) <= stored(store).keys()
    ahead = another(place, "ahead")
    ahead.clock = type(place.clock)(place.clock.time + 400 * DAY)
    ahead.runtime = replace(ahead.runtime, clock=ahead.clock)
    run_prune(ahead)
    assert set(strays) <= stored(store).keys(), "only the clock of the host that prunes says that it is old"
    place.clock.time += DAY + timedelta(minutes=1)
    assert run_prune(place).objects == 3
    assert unreferenced(store) == sorted(foreign)


def test_a_withdrawn_id_is_freed_after_a_month(place: Place) -> None:
    key = layout.snapshot("0000beef0000beef")
    place.stores[0].put(key, layout.WITHDRAWN)
    place.clock.time += 29 * DAY
    run_prune(place)
    assert key in stored(place.stores[0])
    place.clock.time += 2 * DAY
    run_prune(place)
    assert key not in stored(place.stores[0])


def drop(place: Place, key: str) -> None:
    place.stores[0].delete(key)


def cut(place: Place, key: str) -> None:
    put(place.stores[0], key, place.stores[0].read(key)[:-1])


def garble(place: Place, key: str) -> None:
    data = place.stores[0].read(key)
    put(place.stores[0], key, bytes([data[0] ^ 1]) + data[1:])


@pytest.mark.parametrize("harm", [drop, cut, garble])
@pytest.mark.parametrize("part", ["index", "files"])
def test_it_refuses_when_the_newest_is_damaged(place: Place, harm: Callable[[Place, str], None], part: str) -> None:
    newest = manifests(place)[0]
    harm(place, getattr(newest.archives[1], part).key)
    before = stored(place.stores[0])
    with pytest.raises(IntegrityError, match=rf"nothing is pruned, as snapshot {newest.short_id} \(b\)") as refused:
        run_prune(place)
    assert refused.value.exit_code == 13
    assert f"`backupd prune {newest.short_id}`" in (refused.value.hint or "")
    assert stored(place.stores[0]) == before


@pytest.mark.parametrize("harm", [drop, cut])
def test_it_refuses_when_anything_that_stays_lacks_a_part(place: Place, harm: Callable[[Place, str], None]) -> None:
    stays = manifests(place)[2]
    archive = stays.archive("b")
    assert archive is not None
    harm(place, archive.needs[0].key)
    before = stored(place.stores[0])
    with pytest.raises(IntegrityError, match=archive.needs[0].key):
        run_prune(place)
    assert stored(place.stores[0]) == before


def test_damage_of_what_goes_is_no_hindrance(place: Place) -> None:
    oldest = manifests(place)[-1]
    drop(place, oldest.archives[0].index.key)
    assert oldest.id in run_prune(place).snapshots


def test_a_manifest_that_cannot_be_read_may_need_anything(place: Place) -> None:
    broken = manifests(place)[-1]
    garble(place, layout.snapshot(broken.id))
    before = stored(place.stores[0])
    with pytest.raises(IntegrityError, match=r"nothing is pruned: .* is damaged") as refused:
        run_prune(place)
    assert f"`backupd prune {broken.id}`" in (refused.value.hint or "")
    assert stored(place.stores[0]) == before
    assert run_prune(place, request(None, broken.id)).snapshots == (broken.id,)
    run_prune(place)
    assert unreferenced(place.stores[0]) == []
    check_all_that_is_listed(place.stores[0])


def test_a_manifest_of_a_later_version_may_need_anything(place: Place) -> None:
    from msgspec import structs  # noqa: PLC0415

    later = structs.replace(manifests(place)[0], format=99, id="00000000aaaaaaaa")
    place.stores[0].put(layout.snapshot(later.id), encode(later))
    with pytest.raises(RepositoryError, match="format 99") as refused:
        run_prune(place)
    assert refused.value.exit_code == 10


def test_named_ones_go(place: Place) -> None:
    before = manifests(place)
    middle = before[2]
    pruned = run_prune(place, request(KeepPolicy(last=1), middle.id))
    assert pruned.snapshots == (middle.id,)
    assert len(manifests(place)) == len(before) - 1, "the rules do not matter"
    assert unreferenced(place.stores[0]) == []
    check_all_that_is_listed(place.stores[0])


def test_the_newest_good_one_of_a_volume_cannot_be_named(place: Place) -> None:
    newest, partial, *_ = manifests(place)
    before = stored(place.stores[0])
    with pytest.raises(PruneRefused, match=f"{newest.short_id} is the newest good one of volume a"):
        run_prune(place, request(None, newest.id, partial.id))
    assert stored(place.stores[0]) == before
    run_prune(place, request(None, partial.id))


def test_a_damaged_one_can_be_named_though_it_is_the_newest(place: Place) -> None:
    newest = manifests(place)[0]
    for archive in newest.archives:
        garble(place, archive.files.key)
    run_prune(place, request(None, newest.id))
    check_all_that_is_listed(place.stores[0])


def test_one_that_is_damaged_in_part_still_has_the_newest_good_copy_of_the_rest(place: Place) -> None:
    newest = manifests(place)[0]
    garble(place, newest.archives[1].index.key)
    with pytest.raises(PruneRefused, match="newest good one of volume a"):
        run_prune(place, request(None, newest.id))


def test_not_even_all_at_once(place: Place) -> None:
    with pytest.raises(PruneRefused):
        run_prune(place, request(None, *(m.id for m in manifests(place))))


def test_another_repository_in_its_place_is_not_pruned(place: Place) -> None:
    before = stored(place.stores[0])
    (place.base / "state" / "stores.json").write_text('{"one": "ffffffffffffffff"}')
    with pytest.raises(StoreError, match="held the repository ffffffffffffffff"):
        run_prune(place)
    assert stored(place.stores[0]) == before


def test_a_snapshot_that_came_in_without_a_lease_stops_it(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that knows no leases: what its snapshot needs must not go."""
    store = place.stores[0]
    deleted: list[str] = []
    delete = store.delete

    def deleting(key: str) -> None:
        if key.startswith("snapshots/") and not deleted:
            store.put(layout.snapshot("00000000cafecafe"), b"a manifest")
        deleted.append(key)
        delete(key)

    monkeypatch.setattr(store, "delete", deleting)
    with pytest.raises(LockedError, match="changed while it was pruned: 00000000cafecafe"):
        run_prune(place)
    assert [key for key in deleted if key.startswith("archives/")] == []


def test_it_holds_an_exclusive_lease(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[str] = []
    exclusive = Leases.exclusive

    def taking(self: Leases, operation: str) -> AbstractContextManager[object]:
        taken.append(operation)
        return exclusive(self, operation)

    monkeypatch.setattr(Leases, "exclusive", taking)
    run_prune(place)
    assert taken == ["prune"]
    with place.runtime.leases(place.stores[0]).shared("test"), pytest.raises(LockedError, match="test by backupd"):
        run_prune(place)


def test_what_was_pruned_in_one_store_is_not_brought_back_from_another(place: Place) -> None:
    place.stores.append(MemoryStore("two", place.clock))
    plan = replace(place.plan, keep={"one": KeepPolicy(last=2)})
    from backupd.backup import back_up  # noqa: PLC0415

    back_up(plan, place.runtime, place.stores)
    run_prune(place)
    a_day_later(place, 70)
    assert back_up(plan, place.runtime, place.stores).complete
    run_prune(place)
    held = [place.repository(number).snapshot_ids() for number in (0, 1)]
    assert len(held[0]) == 2
    assert len(held[1]) == 8, "there they are kept"


def test_the_records_of_drills_go_with_their_snapshots(place: Place) -> None:
    store = place.stores[0]
    first, *_, last = reversed(manifests(place))
    keys = {id_: layout.drill(id_, "20261101T020000Z-abc") for id_ in (first.id, last.id, "f" * 16)}
    for key in keys.values():
        store.put(key, b"{}")
    run_prune(place)
    left = [key for key in stored(store) if key.startswith(layout.DRILLS)]
    assert left == [keys[last.id]], "that of the snapshot which stays"


@pytest.mark.parametrize("name", ["-2.tar.zst", "-2.index.zst", "-12.files.zst"])
def test_what_a_second_pass_left_is_garbage_like_the_rest(place: Place, name: str) -> None:
    key = f"archives/a/{'f' * 16}{name}"
    place.stores[0].put(key, b"torso")
    place.clock.time += 2 * DAY
    run_prune(place)
    assert key not in stored(place.stores[0])


class Versions:
    """Remembers until when what was deleted is to be removed for good."""

    purges = True

    def __init__(self) -> None:
        self.asked: list[datetime] = []

    def tidy(self, before: datetime) -> OldVersions:
        self.asked.append(before)
        return OldVersions(0, 0)


class Versioned(MemoryStore):
    kept: Versions

    def versions(self) -> Versions:
        return self.kept


@pytest.mark.parametrize("by_id", [False, True])
def test_what_is_hidden_is_purged_after_the_grace_period(place: Place, by_id: bool) -> None:
    """But not while a snapshot lacks an object: somebody may have hidden it, and it can be brought back."""
    store = Versioned("one", place.clock)
    store._objects = place.stores[0]._objects  # type: ignore[attr-defined]
    place.stores[0], store.kept = store, Versions()
    newest, *_, oldest = manifests(place)
    asked = request(KeepPolicy(last=100), oldest.id) if by_id else request(KeepPolicy(last=100))
    key = next(ref.key for ref in newest.archives[0].objects if ref not in oldest.archives[0].objects)
    held = store.read(key)
    store.delete(key)
    if by_id:
        run_prune(place, asked)
        assert [before.year for before in store.kept.asked] == [1]
    else:
        with pytest.raises(IntegrityError):
            run_prune(place, asked)
        assert store.kept.asked == []
    store.put(key, held)
    run_prune(place)
    grace = timedelta(days=1)
    assert timedelta() <= place.clock.time - grace - store.kept.asked[-1] < timedelta(minutes=1)
