"""Backup: what a run of a plan leaves in its stores."""

from __future__ import annotations

import os
import socket
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from backupd.backup import back_up, take_snapshot
from backupd.errors import LockedError, RepositoryError, SourceError, StoreUnavailable
from backupd.lock import volume_lock
from backupd.model import Compression, FullEvery, Volume
from backupd.ports import TarOutput
from backupd.repository import layout
from backupd.repository.documents import encode
from backupd.stores.memory import MemoryStore
from backupd.verify.recording import Look, keep_findings
from backupd.verify.verifier import Finding
from tests.support.faulty_store import FaultyStore
from tests.support.runtime import Place, RecordingProgress, fill, put, stored
from tools.fingerprint import fingerprint


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    fill(place.root())
    return place


def test_first_is_full_then_incremental(place: Place) -> None:
    (place.root() / "big").write_bytes(os.urandom(12 << 20))
    first = place.backup()
    again = place.backup()
    (place.root() / "new").write_bytes(b"new" * 1000)
    third = place.backup()
    archives = [result.manifest.archives[0] for result in (first, again, third)]
    assert [archive.full for archive in archives] == [True, False, False]
    assert [archive.parent for archive in archives] == [None, first.manifest.id, again.manifest.id]
    assert {archive.base.snapshot for archive in archives} == {first.manifest.id}
    assert archives[2].new_size < archives[2].plain_size
    assert first.complete
    assert first.store == "local"
    assert isinstance(place.runtime.progress, RecordingProgress)
    assert place.runtime.progress.open == 0


def test_unchanged_volume_adds_no_data(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.root().mkdir(parents=True)
    (place.root() / "a").write_bytes(b"a" * 100_000)
    place.backup()
    again = place.backup().manifest
    assert again.archives[0].stored_size == again.archives[0].new_size == 0
    assert layout.data("data", again.id, ".tar.zst") not in stored(place.stores[0])
    place.restore(again)
    assert (place.root() / "a").read_bytes() == b"a" * 100_000


@pytest.mark.parametrize(
    ("age", "expected"),
    [(timedelta(days=7), [True, False, True, False]), (timedelta(0), [True] * 4), (None, [True, False, False, False])],
)
def test_full_every(place: Place, age: timedelta | None, expected: list[bool]) -> None:
    place.full_every = FullEvery(age)
    full = []
    for days in (0, 6, 2, 6):
        place.clock.time += timedelta(days=days)
        full.append(place.backup().manifest.archives[0].full)
    assert full == expected


@pytest.mark.parametrize("damage", ["missing data", "short data", "missing index", "damaged index", "garbage index"])
def test_damaged_parent_is_not_built_upon(place: Place, damage: str) -> None:
    parent = place.backup().manifest
    store = place.stores[0]
    how, what = damage.split()
    key = (parent.archives[0].needs[0] if what == "data" else parent.archives[0].index).key
    content = store.read(key)
    if how == "missing":
        store.delete(key)
    else:
        put(store, key, {"short": content[:-1], "damaged": content[:-1] + b"!", "garbage": b"x" * len(content)}[how])
    manifest = place.backup().manifest
    assert manifest.archives[0].full
    assert any("starting anew" in note for note in place.notes)
    before = place.prints()
    (place.root() / "text").unlink()
    place.restore(manifest)
    assert place.prints() == before


def test_missing_volumes(tmp_path: Path) -> None:
    place = Place(tmp_path, names=("data", "gone", "maybe"), optional=("maybe",))
    fill(place.root())
    result = place.backup()
    assert not result.complete
    assert [(failure.volume, failure.optional) for failure in result.manifest.failures] == [
        ("gone", False),
        ("maybe", True),
    ]
    place.names = ("data", "maybe")
    assert place.backup().complete


def test_nothing_to_back_up(tmp_path: Path) -> None:
    place = Place(tmp_path, names=("a", "b"))
    with pytest.raises(SourceError, match=r"no volume could be backed up.*a.*b"):
        place.backup()
    assert place.repository().snapshots() == ([], [])


def test_single_missing_volume_says_so(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="there is no directory"):
        Place(tmp_path).backup()


def test_exclude(place: Place) -> None:
    place.exclude = ("sub/deep", "*.tmp")
    (place.root() / "x.tmp").touch()
    archive = place.backup().manifest.archives[0]
    paths = {member.path for member in place.repository().files(archive)}
    assert "sub/file" in paths
    assert not paths & {"sub/deep", "sub/deep/x", "x.tmp"}


def test_warnings_are_recorded(place: Place) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place.root() / "s"))
        archive = place.backup().manifest.archives[0]
    assert archive.warning_count == 1
    assert "socket ignored" in archive.warnings[0]


def test_lock_is_held(place: Place) -> None:
    volume = place.runtime.engine.find(place.spec())
    with volume_lock(place.runtime.locks, volume), pytest.raises(LockedError):
        place.backup()
    assert place.backup().complete


def test_locked_volume_among_others_is_a_failure(place: Place) -> None:
    place.names = ("data", "other")
    fill(place.root("other"))
    with volume_lock(place.runtime.locks, place.runtime.engine.find(place.spec("other"))):
        result = place.backup()
    assert [failure.volume for failure in result.manifest.failures] == ["other"]


def test_a_tar_that_dies_is_told_from_a_damaged_store(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    (place.root() / "big").write_bytes(os.urandom(12 << 20))  # more than fits into a pipe
    tar_out = place.runtime.engine.tar_out

    def dying(volume: Volume, exclude: tuple[str, ...] = ()) -> TarOutput:
        job = tar_out(volume, exclude)
        job._process.kill()  # type: ignore[attr-defined]
        return job

    monkeypatch.setattr(place.runtime.engine, "tar_out", dying)
    with pytest.raises(SourceError, match="killed by signal 9"):
        place.backup()
    assert place.repository().snapshots() == ([], [])


class TestSeveralStores:
    @pytest.fixture
    def place(self, place: Place) -> Place:
        place.stores = [FaultyStore(MemoryStore(name)) for name in ("first", "second")]
        return place

    def test_all_get_it(self, place: Place) -> None:
        manifest = place.backup().manifest
        assert place.repository(0).load(manifest.id) == place.repository(1).load(manifest.id) == manifest
        first, second = (stored(store) for store in place.stores)
        assert first.keys() == second.keys()
        assert {key for key in first if first[key] != second[key]} == {"backupd.json"}

    @pytest.mark.parametrize("away", [0, 1])
    def test_a_store_that_was_away_is_caught_up(self, place: Place, away: int) -> None:
        before = place.backup().manifest
        faulty = place.stores[away]
        assert isinstance(faulty, FaultyStore)
        faulty.break_down(StoreUnavailable("away"))
        (place.root() / "n").write_text("2")
        result = place.backup()
        assert result.store_failures == {faulty.name: "away"}
        assert result.store == place.stores[1 - away].name
        assert result.stores == (result.store,)
        assert not result.complete
        faulty.mend()
        last = place.backup()
        assert last.complete
        assert last.store == "first"
        assert last.stores == ("first", "second")
        assert place.repository(away).snapshot_ids() == {before.id, result.manifest.id, last.manifest.id}

    def test_first_breaks_while_writing(self, place: Place) -> None:
        place.backup()
        first = place.stores[0]
        assert isinstance(first, FaultyStore)
        first.fail_at(first.count + 8, StoreUnavailable("gone in the middle"))
        first.stays_broken = True
        result = place.backup()
        assert result.store == "second"
        assert list(result.store_failures) == ["first"]
        first.mend()
        assert place.backup().complete
        assert place.repository(0).snapshot_ids() == place.repository(1).snapshot_ids()

    def test_all_are_away(self, place: Place) -> None:
        for store in place.stores:
            assert isinstance(store, FaultyStore)
            store.break_down(StoreUnavailable("away"))
        with pytest.raises(StoreUnavailable):
            place.backup()

    def test_damaged_snapshot_is_passed_over(self, place: Place) -> None:
        second = place.stores[1]
        assert isinstance(second, FaultyStore)
        second.break_down(StoreUnavailable("away"))
        place.full_every = FullEvery(timedelta(0))
        damaged = place.backup().manifest
        good = place.backup().manifest
        second.mend()
        key = damaged.archives[0].needs[0].key
        data = place.stores[0].read(key)
        put(place.stores[0], key, data[:-1] + bytes([data[-1] ^ 1]))
        result = place.backup()
        assert list(result.store_failures) == ["second"]
        assert place.repository(1).snapshot_ids() == {good.id, result.manifest.id}
        assert list(place.backup().store_failures) == ["second"], "it is told for as long as it lasts"

    def test_third_store_is_served_by_whoever_is_there(self, place: Place) -> None:
        place.stores.append(third := FaultyStore(MemoryStore("third")))
        third.break_down(StoreUnavailable("away"))
        place.backup()
        third.mend()
        first = place.stores[0]
        assert isinstance(first, FaultyStore)
        first.break_down(StoreUnavailable("away"))
        result = place.backup()
        assert list(result.store_failures) == ["first"]
        assert place.repository(2).snapshot_ids() == place.repository(1).snapshot_ids()
        assert len(place.repository(2).snapshot_ids()) == 2

    def test_a_store_is_owed_older_snapshots_too(self, place: Place) -> None:
        old = place.backup().manifest
        place.backup()
        place.stores[1].delete(layout.snapshot(old.id))
        place.backup()
        assert old.id in place.repository(1).snapshot_ids()

    def test_a_store_that_is_another_one_now_has_failed(self, place: Place) -> None:
        place.backup()
        place.stores[0] = MemoryStore("first")  # the disk is not mounted
        result = place.backup()
        assert result.store == "second"
        assert "is it mounted?" in result.store_failures["first"]
        assert list(place.stores[0].list()) == []

    def test_a_damaged_manifest_is_told(self, place: Place) -> None:
        old = place.backup().manifest
        put(place.stores[1], layout.snapshot(old.id), b"{}")
        result = place.backup()
        assert "second" in result.store_failures
        assert result.stores == ("first",)

    def test_a_store_with_other_things_is_left_alone(self, place: Place) -> None:
        place.stores[0].put("holiday.jpg", b"x")
        result = place.backup()
        assert result.store == "second"
        assert "holiday.jpg" in result.store_failures["first"]


@pytest.mark.parametrize("codec", ["zstd", "gzip", "none"])
@pytest.mark.parametrize("level", [None, 1])
def test_codecs(place: Place, codec: str, level: int | None) -> None:
    place.compression = Compression(codec, level)  # type: ignore[arg-type]
    before = place.prints()
    manifest = place.backup().manifest
    (place.root() / "text").unlink()
    place.restore(manifest, safety_snapshot=False)
    assert place.prints() == before


def test_codec_may_change_between_runs(place: Place) -> None:
    (place.root() / "big").write_bytes(os.urandom(12 << 20))
    place.backup()
    place.compression = Compression("gzip")
    (place.root() / "n").write_text("n")
    manifest = place.backup().manifest
    assert {Path(ref.key).suffix for ref in manifest.archives[0].needs} == {".zst", ".gz"}
    before = fingerprint(place.root())
    place.restore(manifest)
    assert fingerprint(place.root()) == before


def test_safety_snapshots_are_not_built_upon(place: Place) -> None:
    first = place.backup().manifest
    repository = place.repository()
    with place.runtime.leases(repository.store).shared("test") as lease:
        safety = take_snapshot(place.plan, place.runtime, repository, lease, "safety")
    assert safety.archives[0].parent == first.id
    assert place.backup().manifest.archives[0].parent == first.id


def test_newer_repository(place: Place) -> None:
    place.backup()
    config = place.repository().config
    put(place.stores[0], "backupd.json", encode(msgspec.structs.replace(config, format=3)))
    with pytest.raises(RepositoryError, match="format 3"):
        back_up(place.plan, place.runtime, place.stores)


def test_nothing_is_built_upon_what_a_check_has_found_damaged(place: Place) -> None:
    first = place.backup().manifest
    finding = Finding(first.id, "data", problem="rotten")
    keep_findings(place.repository(), first, [finding], Look(place.clock.now(), "data", 1.0), place.runtime)
    second = place.backup().manifest
    assert second.archives[0].full
    assert any("starting anew: the check of 2026-11-01" in note for note in place.notes)
    assert not place.backup().manifest.archives[0].full
