"""What one store can't give is read from another, chunk by chunk; damaged bytes reach nobody."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from backupd.archive import ChunkRef
from backupd.browse import cat, list_files
from backupd.errors import BackupdError, IntegrityError, StoreDenied, StoreUnavailable
from backupd.ports import Store
from backupd.repository import Archive, Elsewhere, Repository
from backupd.restore.operation import restore
from backupd.restore.target import RestoreRequest, plan_restore
from backupd.stores.memory import MemoryStore
from backupd.transfer import export_tar
from tests.support.faulty_store import FaultyStore
from tests.support.keys import Machine, pair, use
from tests.support.runtime import Place, RecordingProgress, put
from tests.support.two_stores import SMALL

KEY = pair()


@pytest.fixture(params=[True, False], ids=["encrypted", "clear"])
def place(tmp_path: Path, request: pytest.FixtureRequest) -> Place:
    place = Place(tmp_path, stores=[MemoryStore(name) for name in ("one", "two", "three")])
    place.root().mkdir(parents=True)
    (place.root() / "a").write_bytes(random.Random(1).randbytes(400_000))
    (place.root() / "b").write_text("text\n" * 1000)
    for store in place.stores:
        Repository.open_or_create(store, threads=2, now=place.clock.now(), new_id=place.runtime.new_id, chunker=SMALL)
    return use(place, Machine(tmp_path / "state").security([KEY.public] if request.param else [], KEY))


class Helped:
    """The first store's repository, helped by the others."""

    def __init__(self, place: Place, stores: list[Store] | None = None) -> None:
        self.notes: list[str] = []
        self.opened: list[str] = []
        others = place.stores[1:] if stores is None else stores
        self.elsewhere = Elsewhere({store.name: self._opener(store) for store in others}, self.notes.append)
        self.repository = place.repository().helped_by(self.elsewhere)

    def _opener(self, store: Store) -> Callable[[], Store]:
        def opened() -> Store:
            self.opened.append(store.name)
            return store

        return opened


def exported(repository: Repository, archive: Archive) -> bytes:
    out = bytearray()
    export_tar(repository, archive, out.extend, RecordingProgress())
    return bytes(out)


def chunks(place: Place, archive: Archive) -> list[ChunkRef]:
    return list(place.repository().index(archive))


def flip(store: Store, key: str, at: int) -> None:
    data = store.read(key)
    put(store, key, data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])


def test_a_sound_store_needs_no_help(place: Place) -> None:
    archive = place.backup().manifest.archives[0]
    helped = Helped(place)
    assert exported(helped.repository, archive) == exported(place.repository(), archive)
    assert (helped.opened, helped.notes, helped.elsewhere.summary()) == ([], [], [])


def test_each_chunk_comes_from_where_it_is_whole(place: Place) -> None:
    """Every store is damaged, and no two of them at the same chunk."""
    archive = place.backup().manifest.archives[0]
    key = archive.needs[0].key
    expected = exported(place.repository(), archive)
    refs = chunks(place, archive)
    assert len(refs) > 9
    for number, ref in enumerate(refs):
        for store in place.stores:
            if store is not place.stores[number % 3]:
                flip(store, key, ref.offset + ref.stored_size // 2)
    helped = Helped(place)
    assert exported(helped.repository, archive) == expected
    (note,) = helped.notes
    assert note.startswith("one: data: ")
    assert note.endswith("; taken from store two")
    first, second = helped.elsewhere.summary()
    assert first.endswith("from store two")
    assert second.endswith("from store three")
    with pytest.raises(IntegrityError):
        exported(place.repository(), archive)


def test_what_is_damaged_everywhere_reaches_nobody(place: Place) -> None:
    archive = place.backup().manifest.archives[0]
    expected = exported(place.repository(), archive)
    ref = chunks(place, archive)[5]
    for store in place.stores:
        flip(store, archive.needs[0].key, ref.offset + ref.stored_size // 2)
    out = bytearray()
    with pytest.raises(IntegrityError, match=r"one: data: .*; elsewhere: two: data: .*; three: data: "):
        export_tar(Helped(place).repository, archive, out.extend, RecordingProgress())
    assert len(out) < len(expected)
    assert expected.startswith(bytes(out))


@pytest.mark.parametrize("part", ["data", "index", "files"])
@pytest.mark.parametrize("how", ["missing", "short", "flipped", "away", "denied"])
def test_whatever_is_wrong_with_an_object(place: Place, part: str, how: str) -> None:
    archive = place.backup().manifest.archives[0]
    expected = exported(place.repository(), archive)
    key = {"data": archive.needs[0], "index": archive.index, "files": archive.files}[part].key
    store = place.stores[0]
    if how in ("away", "denied"):
        place.stores[0] = _Refusing(store, key, StoreUnavailable("away") if how == "away" else StoreDenied("no"))
    elif how == "missing":
        store.delete(key)
    elif how == "short":
        put(store, key, store.read(key)[:-1])
    else:
        flip(store, key, len(store.read(key)) - 9)
    helped = Helped(place)
    helped.repository.check_reachable(archive.objects)
    assert [member.path for member in list_files(helped.repository, archive, recursive=True)] == ["a", "b"]
    assert exported(helped.repository, archive) == expected
    out = bytearray()
    assert cat(helped.repository, archive, "b", out.extend) == 5000
    assert out == b"text\n" * 1000
    assert any("taken from store two" in note for note in helped.notes)


class _Refusing(FaultyStore):
    def __init__(self, store: Store, key: str, error: BackupdError) -> None:
        super().__init__(store)
        self.key, self.error, self.asked = key, error, 0

    def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        if key == self.key:
            self.asked += 1
            raise self.error
        return super().read(key, offset, length)


def test_a_store_that_is_away_is_not_asked_for_every_chunk(place: Place) -> None:
    """Each of these questions may last a minute."""
    archive = place.backup().manifest.archives[0]
    key = archive.needs[0].key
    expected = exported(place.repository(), archive)
    flip(place.stores[1], key, chunks(place, archive)[3].offset + 100)
    away = _Refusing(place.stores[0], key, StoreUnavailable("away"))
    place.stores[0] = away
    helped = Helped(place)
    assert exported(helped.repository, archive) == expected
    assert away.asked <= place.runtime.threads + 2
    with pytest.raises(StoreUnavailable, match="away"):
        exported(Helped(place, []).repository, archive)


def test_one_that_came_back_is_asked_when_nobody_else_can_help(place: Place) -> None:
    archive = place.backup().manifest.archives[0]
    key = archive.needs[0].key
    expected = exported(place.repository(), archive)
    refs = chunks(place, archive)
    store = place.stores[0]
    away = _Refusing(store, key, StoreUnavailable("away"))
    place.stores[0] = away
    helped = Helped(place, [place.stores[1]])
    stream = helped.repository.reader(archive, [key]).chunks(refs[:1])
    assert expected.startswith(bytes(next(stream)))
    away.key = "nothing"
    flip(place.stores[1], key, refs[-2].offset + 100)
    assert exported(helped.repository, archive) == expected


def test_a_restore_is_whole_and_says_who_served(place: Place) -> None:
    manifest = place.backup().manifest
    archive = manifest.archives[0]
    before = place.prints()
    (place.root() / "a").write_bytes(b"spoilt")
    for ref in chunks(place, archive)[2:4]:
        flip(place.stores[0], archive.needs[0].key, ref.offset + 100)
    place.stores[0].delete(archive.files.key)
    helped = Helped(place)
    request = RestoreRequest()
    configured = {"data": place.spec()}
    steps = plan_restore(request, manifest, helped.repository, place.runtime, configured)
    result = restore(steps, request, helped.repository, place.runtime)
    assert place.prints() == before
    assert "data: 2 pieces came from store two" in "; ".join(result.warnings)
    assert result.safety is not None
    assert all(place.repository().problem_with(ref) is None for ref in result.safety.archives[0].objects)
    with pytest.raises(IntegrityError):
        place.restore(manifest, safety_snapshot=False)


def test_a_safety_snapshot_does_not_lean_on_what_only_others_have(place: Place) -> None:
    manifest = place.backup().manifest
    archive = manifest.archives[0]
    place.stores[0].delete(archive.needs[0].key)
    (place.root() / "c").write_text("new")
    helped = Helped(place)
    request = RestoreRequest()
    steps = plan_restore(request, manifest, helped.repository, place.runtime, {"data": place.spec()})
    result = restore(steps, request, helped.repository, place.runtime)
    assert result.safety is not None
    assert result.safety.archives[0].full
    place.repository().check(result.safety.archives[0].objects)
