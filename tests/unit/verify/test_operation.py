"""Verify over several stores: results, what is noted, what is mended."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from backupd.errors import (
    IntegrityError,
    KeyMissing,
    LeaseLost,
    NoRepository,
    PartialFailure,
    SnapshotNotFound,
    StoreDenied,
    StoreUnavailable,
)
from backupd.repository import Manifest, ObjectRef, layout, standing_of, standings
from backupd.stores.memory import MemoryStore
from backupd.verify.operation import verify
from backupd.verify.result import Verified, VerifyRequest
from tests.support.faulty_store import FaultyStore
from tests.support.keys import Machine, pair, use
from tests.support.runtime import Place, put, stored
from tests.support.two_stores import two_stores

WHOLE = VerifyRequest(fraction=1.0)
REPAIR = VerifyRequest(fraction=1.0, repair=True)
Harm = Callable[[Place, str], None]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return two_stores(tmp_path, 200_000)


def run(place: Place, request: VerifyRequest = WHOLE) -> Verified:
    return verify(place.stores, request, place.runtime, random.Random(1))


def snapshots(place: Place, number: int = 0) -> list[Manifest]:
    """Newest first."""
    return place.repository(number).snapshots()[0]


def garble(place: Place, key: str, number: int = 0) -> None:
    data = place.stores[number].read(key)
    at = len(data) // 2
    put(place.stores[number], key, data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])


def drop(place: Place, key: str, number: int = 0) -> None:
    place.stores[number].delete(key)


def cut(place: Place, key: str, number: int = 0) -> None:
    put(place.stores[number], key, place.stores[number].read(key)[:-1])


def state(place: Place, snapshot: str, number: int = 0) -> str:
    return standing_of(place.repository(number), snapshot).state


def test_what_is_found_is_noted(place: Place) -> None:
    newest, oldest = snapshots(place)
    assert [state(place, newest.id, number) for number in (0, 1)] == ["unverified", "unverified"]
    verified = run(place, VerifyRequest())
    verified.require_good()
    assert [(one.store, one.snapshots, one.read) for one in verified.stores] == [("one", 2, 0), ("two", 2, 0)]
    check = standing_of(place.repository(), newest.id).check
    assert check is not None
    assert (check.kind, check.fraction, check.host, check.repository) == (
        "sizes", 0.0, "testhost", place.repository().config.id,
    )  # fmt: skip
    key = newest.archives[0].needs[0].key
    garble(place, key)
    verified = run(place)
    assert [len(one.problems) for one in verified.stores] == [1, 0]
    assert [state(place, newest.id, number) for number in (0, 1)] == ["damaged", "good"]
    assert state(place, oldest.id) == "good"
    assert verified.stores[0].standings[newest.id].state == "damaged"
    with pytest.raises(IntegrityError, match="1 problem found") as raised:
        verified.require_good()
    assert "whole: two" in (raised.value.hint or "")


def test_a_quicker_look_still_tells_what_is_known(place: Place) -> None:
    newest = snapshots(place)[0]
    garble(place, newest.archives[0].needs[0].key)
    run(place)
    (problem,) = run(place, VerifyRequest()).problems
    assert f"one: snapshot {newest.short_id}, data: a check of all data at 2026-11-01" in problem


def test_one_snapshot_or_one_plan(place: Place) -> None:
    newest, oldest = snapshots(place)
    assert [one.snapshots for one in run(place, VerifyRequest(oldest.short_id)).stores] == [1, 1]
    assert (state(place, newest.id), state(place, oldest.id)) == ("unverified", "good")
    assert [one.snapshots for one in run(place, VerifyRequest(plan="other")).stores] == [0, 0]
    place.stores[1].delete(layout.snapshot(oldest.id))
    first, second = run(place, VerifyRequest(oldest.id)).stores
    assert (first.absent, second.absent, second.error) == (False, True, None)
    with pytest.raises(SnapshotNotFound):
        run(place, VerifyRequest("ffff"))


def test_stores_that_do_not_answer(place: Place) -> None:
    broken = FaultyStore(place.stores[0])
    broken.break_down(StoreUnavailable("away"))
    place.stores[0] = broken
    verified = run(place)
    assert [str(one.error) for one in verified.stores] == ["away", "None"]
    with pytest.raises(PartialFailure, match="away"):
        verified.require_good()
    place.stores = place.stores[:1]
    with pytest.raises(StoreUnavailable):
        run(place).require_good()
    place.stores = [MemoryStore("new")]
    with pytest.raises(NoRepository):
        run(place)


def test_a_store_that_takes_no_records(place: Place, tmp_path: Path) -> None:
    class Denying(FaultyStore):
        def put(self, key: str, data: bytes):  # type: ignore[no-untyped-def]
            raise StoreDenied(f"{key} cannot be written")

    newest = snapshots(place)[0]
    place.stores[0] = Denying(place.stores[0])
    run(place).require_good()
    assert any("is not noted in the store" in note for note in place.notes)
    assert state(place, newest.id) == "unverified"
    use(place, replace(place.runtime.security, records=tmp_path / "state" / "records"))
    run(place).require_good()
    assert state(place, newest.id) == "good"


def test_a_snapshot_that_was_pruned_meanwhile_is_no_damage(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    oldest = snapshots(place)[1]
    store = place.stores[0]
    place.repository().forget([oldest.id])
    stat = store.stat

    def pruned(key: str):  # type: ignore[no-untyped-def]
        store.delete(layout.snapshot(oldest.id))
        store.delete(oldest.archives[0].index.key)
        return stat(key)

    monkeypatch.setattr(store, "stat", pruned)
    assert run(place).problems == []
    assert layout.checks_of(oldest.id) not in "".join(stored(store))


@pytest.mark.parametrize("part", ["data", "index", "files"])
@pytest.mark.parametrize("harm", [garble, drop, cut])
def test_repair(place: Place, harm: Harm, part: str) -> None:
    """The damaged object is what it was, all snapshots are good, and nothing else has changed."""
    before = stored(place.stores[0])
    archive = snapshots(place)[1].archives[0]
    ref: ObjectRef = {"data": archive.needs[0], "index": archive.index, "files": archive.files}[part]
    harm(place, ref.key)
    verified = run(place, REPAIR)
    verified.require_good()
    assert verified.stores[0].repaired is not None
    assert verified.stores[0].repaired.mended == {ref.key: "two"}
    assert verified.stores[1].repaired is None
    after = stored(place.stores[0])
    assert {key: data for key, data in after.items() if not key.startswith("checks/")} == before
    for manifest in snapshots(place):
        assert state(place, manifest.id) == "good"


def test_repair_of_what_an_earlier_check_has_found(place: Place) -> None:
    newest = snapshots(place)[0]
    garble(place, newest.archives[0].needs[0].key)
    run(place)
    run(place, VerifyRequest(repair=True)).require_good()
    found = standing_of(place.repository(), newest.id)
    assert (found.state, found.check and found.check.how) == ("good", "all data")


@pytest.mark.parametrize("harm", [garble, drop])
def test_repair_of_manifests(place: Place, harm: Harm) -> None:
    before = stored(place.stores[0])
    newest = snapshots(place)[0]
    harm(place, layout.snapshot(newest.id))
    assert run(place).problems
    run(place, REPAIR).require_good()
    after = stored(place.stores[0])
    assert {key: data for key, data in after.items() if not key.startswith("checks/")} == before


def test_a_manifest_that_was_exchanged_is_taken_back(place: Place, tmp_path: Path) -> None:
    newest = snapshots(place)[0]
    key = layout.snapshot(newest.id)
    genuine = place.stores[0].read(key)
    stranger = Machine(tmp_path / "stranger").security()
    from backupd.repository.documents import encode  # noqa: PLC0415

    assert stranger.signer is not None
    put(place.stores[0], key, encode(newest, stranger.signer()))
    assert "exchanged" in run(place).problems[0]
    run(place, REPAIR).require_good()
    assert place.stores[0].read(key) == genuine
    put(place.stores[1], key, encode(newest, stranger.signer()))
    put(place.stores[0], key, genuine[:-9])
    assert len(run(place, REPAIR).problems) == 2, "nobody has the genuine one, and a forged one is none"
    assert place.stores[0].read(key) == genuine[:-9]


def test_what_is_damaged_everywhere_stays_as_it_is(place: Place) -> None:
    key = snapshots(place)[1].archives[0].needs[0].key
    garble(place, key)
    cut(place, key, 1)
    before = [stored(store)[key] for store in place.stores]
    verified = run(place, REPAIR)
    assert [stored(store)[key] for store in place.stores] == before
    for one in verified.stores:
        assert one.repaired is not None
        assert one.repaired.left == {key: "no other store holds it whole"}
    with pytest.raises(IntegrityError, match="4 problems") as raised:
        verified.require_good()
    assert "what no store holds whole is lost" in (raised.value.hint or "")


def test_each_mends_the_other(place: Place) -> None:
    newest, oldest = (manifest.archives[0].needs[0].key for manifest in snapshots(place))
    garble(place, newest)
    drop(place, oldest, 1)
    run(place, REPAIR).require_good()
    assert stored(place.stores[0])[newest] == stored(place.stores[1])[newest]


class Keeping(FaultyStore):
    """Deletes nothing but leases."""

    def delete(self, key: str) -> None:
        if not key.startswith("leases/"):
            raise StoreDenied(f"not allowed to delete {key}")
        super().delete(key)


def test_a_store_that_may_not_delete(place: Place) -> None:
    """What is missing is put there; what is damaged cannot be replaced, and stays."""
    newest, oldest = (manifest.archives[0] for manifest in snapshots(place))
    place.stores[0] = Keeping(place.stores[0])
    place.stores[0].store.delete(newest.index.key)  # type: ignore[attr-defined]
    verified = run(place, REPAIR)
    verified.require_good()
    inner = place.stores[0].store  # type: ignore[attr-defined]
    data = inner.read(oldest.files.key)
    inner.delete(oldest.files.key)
    inner.put(oldest.files.key, data[:-1])
    verified = run(place, REPAIR)
    assert verified.stores[0].repaired is not None
    assert "the store refuses to replace it: not allowed" in verified.stores[0].repaired.left[oldest.files.key]
    assert inner.read(oldest.files.key) == data[:-1]
    with pytest.raises(IntegrityError):
        verified.require_good()


def test_nobody_prunes_or_writes_meanwhile(place: Place) -> None:
    garble(place, snapshots(place)[0].archives[0].needs[0].key)
    with place.runtime.leases(place.stores[0]).shared("backup"):
        verified = run(place, REPAIR)
    assert "is in use: backup" in str(verified.stores[0].error)
    assert verified.stores[0].problems


def test_one_that_stood_still_deletes_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lease was taken away by somebody who has mended the manifest meanwhile."""
    store, newest = place.stores[0], snapshots(place)[0]
    key, last = layout.snapshot(newest.id), newest.archives[0].files.key
    genuine, read = store.read(key), store.read
    garble(place, key)

    def slow(wanted: str, offset: int = 0, length: int | None = None) -> bytes:
        data = read(wanted, offset, length)
        leases = [info.key for info in store.list(layout.LEASES)]
        if wanted == last and leases:
            for lease in leases:
                store.delete(lease)
            put(store, key, genuine)
        return data

    monkeypatch.setattr(store, "read", slow)
    verified = run(place, REPAIR)
    assert isinstance(verified.stores[0].error, LeaseLost)
    assert stored(store)[key] == genuine


def test_a_source_that_does_not_answer(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The third has it."""
    place.stores.append(MemoryStore("three"))
    place.backup()
    key = snapshots(place)[1].archives[0].needs[0].key
    drop(place, key)
    read = place.stores[1].read

    def away(wanted: str, offset: int = 0, length: int | None = None) -> bytes:
        if wanted == key:
            raise StoreUnavailable("away")
        return read(wanted, offset, length)

    monkeypatch.setattr(place.stores[1], "read", away)
    verified = verify(place.stores, VerifyRequest(repair=True), place.runtime, random.Random(1))
    assert verified.stores[0].repaired is not None
    assert verified.stores[0].repaired.mended == {key: "three"}
    verified.require_good()
    drop(place, key)
    drop(place, key, 2)
    verified = verify(place.stores, VerifyRequest(repair=True), place.runtime, random.Random(1))
    assert verified.stores[0].repaired is not None
    assert verified.stores[0].repaired.left == {key: "not to be had from elsewhere now: away"}


def test_without_the_key(tmp_path: Path) -> None:
    """A daemon that has public keys only: what is stored is hashed as it is, in whole or in part, and mended."""
    key = pair()
    place = Place(tmp_path, stores=[MemoryStore("one"), MemoryStore("two")])
    place.root().mkdir(parents=True)
    (place.root() / "a").write_bytes(random.Random(1).randbytes(300_000))
    use(place, Machine(tmp_path / "state").security([key.public])).backup()
    (manifest,) = snapshots(place)
    with pytest.raises(KeyMissing):
        run(place).require_good()
    keyless = VerifyRequest(fraction=1.0, keyless=True)
    verified = run(place, keyless)
    verified.require_good()
    assert verified.stores[0].read == manifest.archives[0].needs[0].size
    check = standing_of(place.repository(), manifest.id).check
    assert check is not None
    assert (check.kind, check.host, check.full) == ("objects", "", True)
    garble(place, manifest.archives[0].needs[0].key)
    assert run(place, keyless).problems
    (found,) = standings(place.repository()).of.values()
    assert found.problem == "data: damaged", "no more than that is told"
    run(place, replace(keyless, repair=True)).require_good()
    assert state(place, manifest.id) == "good"
