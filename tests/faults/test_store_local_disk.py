"""A local store on a disk that is full, read-only or odd, and with writers that are killed."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest

from backupd.errors import IntegrityError, ObjectExists, StoreDenied, StoreError, StoreFull, StoreUnavailable
from backupd.stores import LocalStore, local, localfs
from backupd.verify.operation import verify
from backupd.verify.result import VerifyRequest
from tests.support.runtime import Place

MIB = 1024 * 1024
LATER = timedelta(hours=1)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore("test", tmp_path / "store")


def names(path: Path) -> list[str]:
    return sorted(str(found.relative_to(path)) for found in path.rglob("*") if found.is_file())


def fail(number: int) -> None:
    raise OSError(number, os.strerror(number))


# --- full and read-only disks, injected everywhere and mounted where this process may mount ---


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (errno.ENOSPC, StoreFull),
        (errno.EDQUOT, StoreFull),
        (errno.EROFS, StoreDenied),
        (errno.EACCES, StoreDenied),
        (errno.ESTALE, StoreUnavailable),
        (errno.EIO, StoreError),
    ],
)
@pytest.mark.parametrize("call", ["open", "write", "fsync", "link"])
def test_every_call_that_fails_leaves_nothing(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int, error: type[StoreError]
) -> None:
    store.put("there", b"x")
    with monkeypatch.context() as patch:
        patch.setattr(os, call, lambda *args, **kwargs: fail(number))
        with pytest.raises(error) as caught:
            store.put("a/b", b"hello")
    assert type(caught.value) is error
    assert "store test" in str(caught.value)
    assert names(tmp_path / "store") == ["there"]
    store.put("a/b", b"hello")


def test_a_failed_flush_of_the_directory_takes_the_name_back(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put("a/there", b"x")
    with monkeypatch.context() as patch:
        patch.setattr(localfs, "sync_directory", lambda path: fail(errno.EIO))
        with pytest.raises(StoreError):
            store.put("a/b", b"hello")
    assert names(tmp_path / "store") == ["a/there"]


def test_a_write_that_takes_only_a_part_goes_on(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: whole(descriptor, data[:7]))
    store.put("a", bytes(range(100)))
    assert store.read("a") == bytes(range(100))


def test_a_read_that_gives_only_a_part_goes_on(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put("a", bytes(range(100)))
    whole = os.pread
    monkeypatch.setattr(os, "pread", lambda descriptor, length, offset: whole(descriptor, min(length, 7), offset))
    assert store.read("a", 3) == bytes(range(3, 100))


def test_a_bad_sector_is_damage_of_one_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`verify` finds it, a restore reads elsewhere, and a repair replaces the file."""
    place = Place(tmp_path, stores=[LocalStore(name, tmp_path / name) for name in ("one", "two")])
    place.root().mkdir(parents=True)
    (place.root() / "file").write_bytes(b"content" * 1000)
    place.backup()
    key = place.repository().snapshots()[0][0].archives[0].needs[0].key
    spoilt = (tmp_path / "one" / key).stat().st_ino
    whole = os.pread

    def pread(descriptor: int, length: int, offset: int) -> bytes:
        if os.fstat(descriptor).st_ino == spoilt:
            fail(errno.EIO)
        return whole(descriptor, length, offset)

    held = os.open(tmp_path / "one" / key, os.O_RDONLY)  # so that its number is not given to another
    monkeypatch.setattr(os, "pread", pread)
    with pytest.raises(IntegrityError, match=f"store one: reading {key}"):
        place.stores[0].read(key)
    verify(place.stores, VerifyRequest(fraction=1, repair=True), place.runtime, Random(1)).require_good()
    assert place.stores[0].read(key) == place.stores[1].read(key)
    os.close(held)


def test_a_root_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    store = LocalStore("test", tmp_path / "file" / "store")
    for act in (lambda: store.put("a", b"x"), lambda: list(store.list()), store.facts):
        with pytest.raises(StoreError, match="file/store"):
            act()


def test_a_key_below_an_object_is_refused(store: LocalStore) -> None:
    store.put("a", b"x")
    with pytest.raises(StoreError):
        store.put("a/b", b"y")
    assert [info.key for info in store.list()] == ["a"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MiB, in a mount namespace's worth of care: unmounted at the end, whatever happens."""
    libc = ctypes.CDLL(None, use_errno=True)
    path = tmp_path / "disk"
    path.mkdir()
    if libc.mount(b"tmpfs", os.fsencode(path), b"tmpfs", 0, b"size=2m") != 0:
        pytest.skip("may not mount; the same is injected above")
    try:
        yield path
    finally:
        libc.umount2(os.fsencode(path), 2)


def test_a_disk_that_fills_up(small_disk: Path) -> None:
    store = LocalStore("test", small_disk)
    store.put("there", b"x")

    def fill() -> None:
        with store.create("big") as writer:
            for _ in range(100):
                writer.write(bytes(100_000))
            writer.commit()

    with pytest.raises(StoreFull, match="No space left"):
        fill()
    assert names(small_disk) == ["there"]
    store.put("small", bytes(1_000_000))


def test_a_disk_that_became_read_only(small_disk: Path) -> None:
    store = LocalStore("test", small_disk)
    store.put("a", b"x")
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mount(b"tmpfs", os.fsencode(small_disk), b"tmpfs", 1 | 32, None) == 0  # MS_RDONLY | MS_REMOUNT
    assert store.read("a") == b"x"
    for act in (lambda: store.put("b", b""), lambda: store.delete("a"), store.facts):
        with pytest.raises(StoreDenied, match="Read-only"):
            act()


# --- file systems without links ---


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP])
def test_without_links_renameat2_publishes(store: LocalStore, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(os, "link", lambda *args: fail(number))
    assert store.facts().details["published by"] == "renameat2"
    assert store.facts().conditional_create
    store.put("a", b"first")
    with pytest.raises(ObjectExists):
        store.put("a", b"second")
    assert store.read("a") == b"first"


def test_without_both_the_store_says_that_it_is_weaker(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", lambda *args: fail(errno.EOPNOTSUPP))
    monkeypatch.setattr(localfs, "_rename_noreplace", lambda *args: fail(errno.EINVAL))
    assert store.facts().details["published by"] == "rename"
    assert not store.facts().conditional_create
    store.put("a", b"first")
    with pytest.raises(ObjectExists):
        store.put("a", b"second")
    assert store.read("a") == b"first"


def test_without_locks_writing_works(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda *args: fail(errno.ENOLCK))
    store.put("a", b"x")


def test_directories_that_cannot_be_flushed_are_tolerated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: fail(errno.EINVAL))
    localfs.sync_directory(tmp_path)


# --- killed writers ---

WRITER = """
import os, sys, time
from backupd.stores import LocalStore
writer = LocalStore("test", sys.argv[1]).create("archives/a")
writer.write(b"x" * 100_000)
print("ready", flush=True)
time.sleep(60)
"""


def test_a_killed_writer_leaves_only_what_is_removed_later(store: LocalStore, tmp_path: Path) -> None:
    root = tmp_path / "store"
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WRITER), str(root)], stdout=subprocess.PIPE, cwd=Path.cwd()
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        unfinished = names(root)
        assert len(unfinished) == 1
        assert unfinished[0].startswith(local.UNFINISHED)
        now = datetime.now(UTC)
        assert list(store.list()) == []
        assert store.remove_stale_uploads(timedelta(0), now + LATER) == []  # it lives, and holds the lock
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    (left,) = (root / local.UNFINISHED).iterdir()
    elsewhere = left.with_name("of-another-machine")
    left.rename(elsewhere)
    assert store.remove_stale_uploads(LATER, now) == []  # too young: its writer may live there
    elsewhere.rename(left)
    (removed,) = store.remove_stale_uploads(LATER, now)
    assert "100000 bytes" in removed
    assert names(root) == []
