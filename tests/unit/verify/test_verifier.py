"""Verify: what it finds, and what it reads."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec
import pytest
from blake3 import blake3

from backupd.archive import IndexWriter
from backupd.archive.index import ChunkRef
from backupd.backup import back_up
from backupd.model import Compression
from backupd.repository import Manifest, ObjectRef, Repository
from backupd.repository.documents import encode
from backupd.verify.verifier import Finding, Verifier
from tests.support.runtime import Place, RecordingProgress, put
from tests.support.two_stores import SMALL


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    place.root().mkdir(parents=True)
    (place.root() / "a").write_bytes(random.Random(1).randbytes(300_000))
    Repository.open_or_create(
        place.stores[0], threads=2, now=place.clock.now(), new_id=place.runtime.new_id, chunker=SMALL
    )
    return place


def findings(place: Place, fraction: float = 1.0, only: Manifest | None = None) -> list[Finding]:
    repository = place.repository()
    manifests = [only] if only else repository.snapshots()[0]
    return list(Verifier(repository, RecordingProgress(), fraction, random.Random(3)).verify(manifests))


def problems(place: Place, fraction: float = 1.0) -> list[str]:
    return [finding.problem for finding in findings(place, fraction) if finding.problem]


def test_clean(place: Place) -> None:
    first = place.backup().manifest
    (place.root() / "b").write_bytes(random.Random(2).randbytes(50_000))
    second = place.backup().manifest
    found = findings(place)
    assert [finding.snapshot for finding in found] == [first.id, second.id]
    assert [finding.problem for finding in found] == [None, None]
    assert found[0].read == first.archives[0].plain_size
    assert found[1].read < second.archives[0].plain_size
    assert [finding.read for finding in findings(place, 0)] == [0, 0]
    assert findings(place, only=second)[0].read == second.archives[0].plain_size


def test_fraction(place: Place) -> None:
    size = place.backup().manifest.archives[0].plain_size
    assert 0 < findings(place, 0.3)[0].read < size


def test_each_object_is_read_once(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        (place.root() / f"b{number}").write_bytes(random.Random(number).randbytes(50_000))
        place.backup()
    store = place.stores[0]
    total = sum(info.size for info in store.list("archives/") if info.key.endswith(".tar.zst"))
    read = 0
    original = store.read

    def counting(key: str, offset: int = 0, length: int | None = None) -> bytes:
        nonlocal read
        data = original(key, offset, length)
        read += len(data) if key.endswith(".tar.zst") else 0
        return data

    monkeypatch.setattr(store, "read", counting)
    assert problems(place) == []
    assert read == total


@pytest.mark.parametrize("which", ["data", "index", "files"])
@pytest.mark.parametrize("how", ["missing", "short", "long"])
def test_damage_that_sizes_tell(place: Place, which: str, how: str) -> None:
    archive = place.backup().manifest.archives[0]
    ref = {"data": archive.needs[0], "index": archive.index, "files": archive.files}[which]
    content = place.stores[0].read(ref.key)
    place.stores[0].delete(ref.key)
    if how != "missing":
        place.stores[0].put(ref.key, content[:-1] if how == "short" else content + b"x")
    expected = "is missing" if how == "missing" else f"instead of {ref.size}"
    for fraction in (0, 1):
        assert expected in problems(place, fraction)[0]


@pytest.mark.parametrize("which", ["index", "files"])
def test_damaged_lists_are_always_found(place: Place, which: str) -> None:
    archive = place.backup().manifest.archives[0]
    ref: ObjectRef = getattr(archive, which)
    content = place.stores[0].read(ref.key)
    put(place.stores[0], ref.key, content[:-1] + bytes([content[-1] ^ 1]))
    assert len(problems(place, 0)) == 1


def test_damaged_data_is_found_by_reading(place: Place) -> None:
    archive = place.backup().manifest.archives[0]
    place.backup()
    ref = archive.needs[0]
    content = place.stores[0].read(ref.key)
    put(place.stores[0], ref.key, content[:1000] + bytes([content[1000] ^ 1]) + content[1001:])
    assert problems(place, 0) == []
    assert len(problems(place)) == 2  # the incremental snapshot needs it too


@pytest.mark.parametrize("position", [4, 8, 9])
def test_a_byte_that_no_decompressor_looks_at(place: Place, position: int) -> None:
    """Time, flags and system of a gzip member: what comes out is right, and what is stored is not what was written."""
    place.compression = Compression("gzip")
    ref = back_up(place.plan, place.runtime, place.stores).manifest.archives[0].needs[0]
    content = place.stores[0].read(ref.key)
    put(place.stores[0], ref.key, content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
    assert "is not what was written" in problems(place)[0]


def test_an_index_that_lies(place: Place) -> None:
    """Written by something broken: hashes and sizes are right, what it says is not."""
    manifest = place.backup().manifest
    archive = manifest.archives[0]
    repository = place.repository()
    index = repository.index(archive)
    chunks = list(index)

    def replaced(wrong: list[ChunkRef]) -> str:
        content = bytearray()
        writer = IndexWriter(content.extend, index.archives)
        for chunk in wrong:
            writer.add(chunk)
        writer.close()
        ref = ObjectRef(key=archive.index.key, size=len(content), blake3=blake3(content).hexdigest())
        put(place.stores[0], ref.key, bytes(content))
        changed = msgspec.structs.replace(manifest, archives=[msgspec.structs.replace(archive, index=ref)])
        put(place.stores[0], f"snapshots/{manifest.id}.json", encode(changed))
        return problems(place)[0]

    assert "does not describe all" in replaced(chunks[:-1])
    assert "points outside" in replaced([chunks[0]._replace(offset=10**9), *chunks[1:]])
    assert replaced([*chunks[1:], chunks[0]])
    assert "is not what was stored" in replaced([chunks[0]._replace(digest=chunks[1].digest), *chunks[1:]])
