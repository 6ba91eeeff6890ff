"""The repository's own document, lost or damaged, and written again."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from msgspec.structs import replace

from backupd.archive import ChunkerParameters
from backupd.errors import IntegrityError, NoRepository, PartialFailure, StoreError
from backupd.model import ObjectInfo
from backupd.ports import Store
from backupd.repository import CheckRecord, Repository, layout
from backupd.repository.documents import decode, encode
from backupd.stores.memory import MemoryStore
from backupd.verify.document import mend_document
from backupd.verify.operation import verify
from backupd.verify.result import Verified, VerifyRequest
from tests.support.faulty_store import FaultyStore
from tests.support.keys import Machine, pair, use
from tests.support.pruning import check_all_that_is_listed
from tests.support.runtime import Place, put
from tests.support.two_stores import SMALL, two_stores


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return two_stores(tmp_path, 100_000)


def run(place: Place, *, repair: bool = True) -> Verified:
    return verify(place.stores, VerifyRequest(repair=repair), place.runtime, random.Random(1))


def lose(place: Place, harm: str) -> None:
    data = place.stores[0].read(layout.CONFIG)
    if harm == "gone":
        place.stores[0].delete(layout.CONFIG)
    else:
        put(place.stores[0], layout.CONFIG, data[:-9])


@pytest.mark.parametrize("stores", [1, 2])
@pytest.mark.parametrize("harm", ["gone", "damaged"])
def test_it_is_found_and_written_again(place: Place, harm: str, stores: int) -> None:
    before, listed = place.repository().config, check_all_that_is_listed(place.stores[0])
    place.stores = place.stores[:stores]
    lose(place, harm)
    found = run(place, repair=False)
    assert [harm in problem for problem in found.problems] == [True]
    with pytest.raises(IntegrityError) as raised:
        found.require_good()
    assert "verify --repair" in (raised.value.hint or "")
    if stores == 1:
        with pytest.raises(IntegrityError):
            place.backup()
    else:
        without = place.backup()
        assert (without.stores, list(without.store_failures)) == (("two",), ["one"])

    mended = run(place)
    mended.require_good()
    assert mended.stores[0].repaired is not None
    assert mended.stores[0].repaired.mended == {layout.CONFIG: "one"}
    assert mended.stores[0].snapshots == 2
    after = place.repository().config
    assert (after.id, after.format) == (before.id, before.format)
    assert after.chunker == (SMALL if stores == 2 else ChunkerParameters())
    assert check_all_that_is_listed(place.stores[0]) == listed
    taken = place.backup()
    assert taken.complete
    assert taken.stores == tuple(store.name for store in place.stores)


def test_what_is_damaged_besides_is_mended_by_the_same_run(place: Place) -> None:
    lose(place, "gone")
    key = place.repository(1).snapshots()[0][0].archives[0].needs[0].key
    place.stores[0].delete(key)
    mended = run(place)
    mended.require_good()
    assert mended.stores[0].repaired is not None
    assert mended.stores[0].repaired.mended == {layout.CONFIG: "one", key: "two"}


def test_an_empty_store_is_not_made_into_it(place: Place) -> None:
    """Nothing is mounted there."""
    place.stores[0] = MemoryStore("one")
    with pytest.raises(PartialFailure, match="is it mounted"):
        run(place).require_good()
    assert list(place.stores[0].list()) == []


def test_nor_is_one_of_which_nothing_was_seen(place: Place, tmp_path: Path) -> None:
    """Another repository in its place, which has lost its document, too."""
    other = Place(tmp_path / "other", stores=[MemoryStore("one")])
    other.root().mkdir(parents=True)
    use(other, Machine(tmp_path / "other" / "state").security()).backup()
    place.stores[0] = other.stores[0]
    lose(place, "gone")
    left = refused(place)
    assert "no data of a snapshot of it" in left


def test_nor_is_a_directory_that_a_manifest_got_into_when_it_was_unmounted(place: Place) -> None:
    (newest, *_) = place.repository().snapshots()[0]
    below = MemoryStore("one")
    below.put(layout.snapshot(newest.id), place.stores[0].read(layout.snapshot(newest.id)))
    place.stores[0] = below
    assert "no data of a snapshot of it" in refused(place)


def test_nor_is_a_copy_whose_records_are_about_another(place: Place) -> None:
    """Store two in the place of store one: the same snapshots, but what was checked there was two."""
    run(place, repair=False)
    inner = place.stores[1]
    assert isinstance(inner, MemoryStore)
    inner.name = "one"
    place.stores = [inner]
    lose(place, "damaged")
    assert "is it another?" in refused(place)


def records(store: Store) -> list[str]:
    return [info.key for info in store.list(layout.CHECKS)]


@pytest.mark.parametrize("signed", [True, False])
def test_all_records_that_are_believed_have_to_agree(place: Place, signed: bool) -> None:
    run(place, repair=False)
    alien = place.stores[1].read(records(place.stores[1])[-1])
    if not signed:
        alien = encode(decode(alien, CheckRecord, "alien"))
    last = records(place.stores[0])[-1]
    place.stores[0].put(f"{last.rpartition('/')[0]}/99991231T235959Z-00000000.json", alien)
    lose(place, "damaged")
    if signed:
        assert "is it another?" in refused(place)
    else:
        mend_document(place.stores[0], [], place.runtime)
        assert place.repository().snapshots()[1] == []


def test_any_data_of_a_snapshot_are_proof_enough(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """One object is asked for, or as many as it takes to find one; none twice."""
    newest, older = place.repository().snapshots()[0]
    store, asked = place.stores[0], list[str]()
    stat = store.stat

    def counted(key: str) -> ObjectInfo:
        if key.startswith("archives/"):
            asked.append(key)
        return stat(key)

    monkeypatch.setattr(store, "stat", counted)
    lose(place, "gone")
    mend_document(store, [], place.runtime)
    assert len(asked) == 1
    assert place.repository().config.created == older.time

    objects = {ref.key for manifest in (newest, older) for archive in manifest.archives for ref in archive.objects}
    for key in sorted(objects)[1:]:
        store.delete(key)
    asked.clear()
    lose(place, "gone")
    mend_document(store, [], place.runtime)
    assert len(asked) == len(set(asked)) <= len(objects)
    assert min(objects) == asked[-1]


def test_nor_by_a_machine_that_was_never_there(place: Place, tmp_path: Path) -> None:
    stranger = Machine(tmp_path / "stranger")
    place.runtime = replace(place.runtime, state=stranger.state, security=stranger.security())
    lose(place, "gone")
    assert "has never backed up there" in refused(place)


def refused(place: Place) -> str:
    """Why, and that nothing was changed; a person is told what to do."""
    before = {info.key for info in place.stores[0].list()}
    verified = run(place)
    assert {info.key for info in place.stores[0].list()} == before
    with pytest.raises(IntegrityError) as raised:
        verified.require_good()
    assert "put it back from a copy" in (raised.value.hint or "")
    assert verified.stores[0].repaired is not None
    return verified.stores[0].repaired.left[layout.CONFIG]


def test_a_store_that_may_not_delete(place: Place) -> None:
    from tests.unit.verify.test_operation import Keeping  # noqa: PLC0415

    lose(place, "damaged")
    place.stores[0] = Keeping(place.stores[0])
    assert "not allowed to delete" in refused(place)


def test_killed_in_between(place: Place) -> None:
    """At every operation: the next run does it, and nothing else is touched."""
    lose(place, "damaged")
    before = {info.key: place.stores[0].read(info.key) for info in place.stores[0].list()}
    for number in range(1, 200):
        memory = MemoryStore("one")
        for key, data in before.items():
            memory.put(key, data)
        faulty = FaultyStore(memory)
        faulty.fail_at(number, StoreError("away"))
        faulty.after = bool(number % 2)
        place.stores[0] = faulty
        run(place)
        place.stores[0] = memory
        run(place).require_good()
        assert all(memory.read(key) == data for key, data in before.items() if key != layout.CONFIG)
        if not faulty.failed:
            return
    pytest.fail("it never came to an end")


def test_one_that_holds_encrypted_snapshots_only(tmp_path: Path) -> None:
    place = Place(tmp_path, stores=[MemoryStore("one")])
    place.root().mkdir(parents=True)
    use(place, Machine(tmp_path / "state").security([pair().public])).backup()
    assert place.repository().config.format == 2
    lose(place, "gone")
    run(place).require_good()
    assert place.repository().config.format == 2


def test_a_new_store_is_none(place: Place) -> None:
    with pytest.raises(NoRepository):
        Repository.open(MemoryStore("new"), threads=1)
