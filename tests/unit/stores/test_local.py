"""The local store's files: where, with which modes, and what is not listed."""

from __future__ import annotations

import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backupd.errors import ObjectNotFound, StoreError
from backupd.stores import LocalStore


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "some" / "store"


@pytest.fixture
def store(root: Path) -> LocalStore:
    return LocalStore("test", root)


def keys(store: LocalStore) -> list[str]:
    return [info.key for info in store.list()]


def test_reading_does_not_make_the_root(store: LocalStore, root: Path) -> None:
    assert keys(store) == []
    with pytest.raises(ObjectNotFound):
        store.read("a")
    store.delete("a")
    assert not store.remove_stale_uploads(timedelta(0), datetime.now(UTC))
    assert not root.exists()


def test_modes(store: LocalStore, root: Path) -> None:
    store.put("a/b/c", b"x")
    for directory in (root.parent, root, root / "a", root / "a" / "b"):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE((root / "a/b/c").stat().st_mode) == 0o600
    assert (root / "a/b/c").stat().st_nlink == 1


def test_links_and_odd_files_are_neither_listed_nor_read(store: LocalStore, root: Path, tmp_path: Path) -> None:
    store.put("a/b", b"x")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(b"secret")
    (root / "link").symlink_to(tmp_path / "outside" / "secret")
    (root / "directory").symlink_to(tmp_path / "outside")
    os.mkfifo(root / "fifo")
    assert keys(store) == ["a/b"]
    with pytest.raises(StoreError):
        store.read("link")
    with pytest.raises(ObjectNotFound):
        store.read("fifo")


def test_names_that_are_not_keys_are_not_listed(store: LocalStore, root: Path) -> None:
    store.put("a", b"x")
    (root / "new\nline").write_bytes(b"")
    (Path(os.fsdecode(os.fsencode(root) + b"/\xff"))).write_bytes(b"")
    assert keys(store) == ["a"]


def test_directories_of_others_are_left_alone(store: LocalStore, root: Path) -> None:
    store.put("a", b"x")
    (root / "lost+found").mkdir()
    (root / "lost+found" / "thing").write_bytes(b"")
    assert keys(store) == ["a"]
    for key in ("lost+found/x", ".unfinished/x", ".unfinished"):
        with pytest.raises(StoreError, match="not a key"):
            store.put(key, b"")


def test_the_root_may_be_a_link(root: Path, tmp_path: Path) -> None:
    root.mkdir(parents=True)
    (tmp_path / "link").symlink_to(root)
    store = LocalStore("test", tmp_path / "link")
    store.put("a", b"x")
    assert keys(store) == ["a"]
    assert (root / "a").read_bytes() == b"x"


def test_stale_files_go_by_age_and_lock(store: LocalStore, root: Path) -> None:
    store.put("a", b"x")
    now = datetime.now(UTC)
    old, young = root / ".unfinished" / "old", root / ".unfinished" / "young"
    for path, age in ((old, 7200), (young, 60)):
        path.write_bytes(b"123")
        os.utime(path, (now.timestamp() - age,) * 2)
    with store.create("b") as writer:
        writer.write(b"x")
        (held,) = [path for path in (root / ".unfinished").iterdir() if path not in {old, young}]
        os.utime(held, (0, 0))
        assert store.remove_stale_uploads(timedelta(hours=1), now) == [".unfinished/old (3 bytes)"]
        assert not old.exists()
        assert young.exists()
        writer.commit()
    assert store.read("b") == b"x"


def test_a_relative_path_means_the_directory_at_that_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = LocalStore("test", "here")
    monkeypatch.chdir("/")
    store.put("a", b"x")
    assert (tmp_path / "here" / "a").exists()
