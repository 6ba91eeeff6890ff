"""Looking into snapshots."""

from __future__ import annotations

import hashlib
import os
import random
from pathlib import Path

import pytest

from backupd.archive import Member
from backupd.browse import archive_of, cat, diff, list_files
from backupd.errors import IntegrityError, SnapshotNotFound, SourceError
from backupd.repository import Archive, Manifest, Repository
from tests.support.runtime import Place, fill, put


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = Place(tmp_path_factory.mktemp("browse"))
    fill(place.root())
    (place.root() / "big").write_bytes(random.Random(1).randbytes(9_500_000))
    (place.root() / "z big").write_bytes(random.Random(2).randbytes(3_500_000))
    os.link(place.root() / "big", place.root() / "z hard")
    (place.root() / ("d" * 100) / ("e" * 120)).mkdir(parents=True)
    (place.root() / ("d" * 100) / ("e" * 120) / "f").write_text("long")
    (place.root() / "new\nline").write_text("n")
    os.link(place.root() / "new\nline", place.root() / "z odd")
    return place


@pytest.fixture(scope="module")
def snapshot(place: Place) -> Manifest:
    return place.backup().manifest


@pytest.fixture
def repository(place: Place, snapshot: Manifest) -> Repository:
    return place.repository()


@pytest.fixture
def archive(snapshot: Manifest) -> Archive:
    return archive_of(snapshot, "data")


def test_archive_of(snapshot: Manifest) -> None:
    with pytest.raises(SnapshotNotFound, match="holds no volume other") as caught:
        archive_of(snapshot, "other")
    assert caught.value.hint == "it holds: data"


def test_ls(repository: Repository, archive: Archive) -> None:
    def names(path: str, *, recursive: bool = False) -> set[str]:
        return {member.path for member in list_files(repository, archive, path, recursive=recursive)}

    assert names("sub") == {"sub/deep", "sub/file", "sub/hard"}
    assert names("sub", recursive=True) == {"sub/deep", "sub/file", "sub/hard", "sub/deep/x"}
    assert names("text") == {"text"}
    assert "sub" in names(".")
    assert "sub/file" not in names(".")
    assert "sub/file" in names(".", recursive=True)
    assert "." not in names(".", recursive=True)
    assert names("empty directory") == set()
    with pytest.raises(SourceError, match="holds no su"):
        names("su")


@pytest.mark.parametrize(
    "path",
    [
        *("text", "big", "z big", "z hard", "sub/hard", "sub/deep/x", "sparse", "empty", "z odd"),
        "d" * 100 + "/" + "e" * 120 + "/f",
        os.fsdecode(b"odd \xff\n-name"),
    ],
)
def test_cat(place: Place, repository: Repository, archive: Archive, path: str) -> None:
    expected = (place.root() / path).read_bytes()
    digest, size = hashlib.sha256(), 0
    for_memory = 0

    def write(piece: bytes) -> None:
        nonlocal size, for_memory
        digest.update(piece)
        size += len(piece)
        for_memory = max(for_memory, len(piece))

    assert cat(repository, archive, path, write) == len(expected) == size
    assert digest.hexdigest() == hashlib.sha256(expected).hexdigest()
    assert for_memory <= 1 << 20


@pytest.mark.parametrize(
    ("path", "match"),
    [("sub", "no file but a directory"), ("link", "no file but a symbolic link"), ("nothing", "holds no nothing")],
)
def test_cat_of_what_is_no_file(repository: Repository, archive: Archive, path: str, match: str) -> None:
    with pytest.raises(SourceError, match=match):
        cat(repository, archive, path, bytearray().extend)


def test_cat_fetches_only_what_it_needs(place: Place, repository: Repository, archive: Archive) -> None:
    """`empty` is in a small tar of its own; the big file's chunks may be damaged."""
    key = archive.needs[0].key
    data = place.stores[0].read(key)
    put(place.stores[0], key, data[: len(data) // 3] + b"DAMAGE" + data[len(data) // 3 + 6 :])
    try:
        assert cat(repository, archive, "z odd", bytearray().extend) == 1
        with pytest.raises(IntegrityError):
            cat(repository, archive, "big", bytearray().extend)
    finally:
        put(place.stores[0], key, data)


def test_diff() -> None:
    def member(path: str, **facts: object) -> Member:
        return Member(path=path, kind="file", offset=facts.pop("offset", 0), **facts)  # type: ignore[arg-type]

    before = [member("a", size=1), member("b", mtime=1), member("gone"), member("same", offset=7)]
    after = [member("a", size=2, mtime=1), member("b", mtime=2), member("new"), member("same", offset=9)]
    found = [(item.change, item.path, item.what) for item in diff(before, after)]
    assert found == [
        ("changed", "a", ("size", "mtime")),
        ("changed", "b", ("mtime",)),
        ("removed", "gone", ()),
        ("added", "new", ()),
    ]


def test_diff_of_snapshots(place: Place, repository: Repository, archive: Archive) -> None:
    fresh: Path = place.root() / "fresh"
    fresh.write_text("x")
    later = archive_of(place.backup().manifest, "data")
    fresh.unlink()
    found = {(item.path, item.change) for item in diff(repository.files(archive), repository.files(later))}
    assert found == {("fresh", "added"), (".", "changed")}
