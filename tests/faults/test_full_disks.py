"""Disks that fill up under the store, the state directory and the restored volume, and a store that goes away.

Real file systems: small tmpfs mounts. Nothing is lost, what is listed is whole, and it goes on once there is room.
"""

from __future__ import annotations

import ctypes
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backupd.errors import BackupdError, SourceError, StoreError, StoreFull, VolumeFull
from backupd.journal import Journal
from backupd.model import MIB, VolumeSpec
from backupd.ports import ObjectWriter
from backupd.recover import recover, recover_stores
from backupd.stores.local import LocalStore
from tests.support.pruning import check_all_that_is_listed
from tests.support.runtime import Place, make_runtime
from tools.fingerprint import differences, fingerprint

MS_REMOUNT = 32
MNT_DETACH = 2


class Disk:
    """A tmpfs."""

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.libc = ctypes.CDLL(None, use_errno=True)
        path.mkdir()
        if self._mount(0, size) != 0:
            path.rmdir()
            pytest.skip("may not mount; the same is injected in test_failing_store.py")

    def _mount(self, flags: int, size: int) -> int:
        options = f"size={size},mode=0700".encode()
        return int(self.libc.mount(b"tmpfs", os.fsencode(self.path), b"tmpfs", flags, options))

    def resize(self, size: int) -> None:
        assert self._mount(MS_REMOUNT, size) == 0

    @property
    def free(self) -> int:
        status = os.statvfs(self.path)
        return status.f_bavail * status.f_frsize

    def fill(self, leave: int) -> Path:
        ballast = self.path / "ballast"
        ballast.write_bytes(bytes(max(0, self.free - leave)))
        return ballast

    def detach(self) -> None:
        self.libc.umount2(os.fsencode(self.path), MNT_DETACH)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str, int], Disk]]:
    made: list[Disk] = []

    def make(name: str, size: int) -> Disk:
        made.append(Disk(tmp_path / name, size))
        return made[-1]

    yield make
    for one in made:
        one.detach()


def filled(place: Place, size: int = 3 * MIB, seed: int = 1) -> Place:
    place.root().mkdir(parents=True, exist_ok=True)
    (place.root() / "data").write_bytes(random.Random(seed).randbytes(size))
    (place.root() / "more").write_text(str(seed))
    return place


# --- the store ---


def test_the_store_is_full(tmp_path: Path, disk: Callable[[str, int], Disk]) -> None:
    """With whatever is left: for nothing, for a part of the data, for all but index, file list or manifest."""
    small = disk("disk", 16 * MIB)
    place = filled(Place(tmp_path, stores=[LocalStore("one", small.path / "store")]))
    place.backup()
    listed = check_all_that_is_listed(place.stores[0])
    filled(place, seed=2)
    failed = 0
    for leave in (0, 4096, 100_000, 2 * MIB, 3 * MIB + 8192, 3 * MIB + 12 * 1024, 3 * MIB + 16 * 1024):
        ballast = small.fill(leave)
        try:
            place.backup()
        except StoreFull:
            failed += 1
        ballast.unlink()
        assert check_all_that_is_listed(place.stores[0])[-len(listed) :] == listed
        assert list((small.path / "store" / ".unfinished").iterdir()) == []
        assert list(place.stores[0].list("leases/")) == []
    assert failed >= 4
    assert place.backup().complete
    check_all_that_is_listed(place.stores[0])


def test_another_store_takes_what_the_full_one_does_not(tmp_path: Path, disk: Callable[[str, int], Disk]) -> None:
    small = disk("disk", 8 * MIB)
    stores = [LocalStore("small", small.path / "store"), LocalStore("large", tmp_path / "large")]
    place = filled(Place(tmp_path, stores=[*stores]))
    place.backup()
    ballast = small.fill(100_000)
    filled(place, seed=2)
    result = place.backup()
    assert {*result.store_failures} == {"small"}
    assert result.store == "large"
    ballast.unlink()
    assert place.backup().complete
    assert place.repository(0).snapshot_ids() == place.repository(1).snapshot_ids()
    for store in stores:
        check_all_that_is_listed(store)


def test_what_a_killed_backup_left_does_not_keep_the_store_full(
    tmp_path: Path, disk: Callable[[str, int], Disk]
) -> None:
    small = disk("disk", 12 * MIB)
    store = LocalStore("one", small.path / "store")
    place = filled(Place(tmp_path, stores=[store]))
    place.backup()
    if (child := os.fork()) == 0:
        writer = store.create("archives/data/x")
        try:
            while True:
                writer.write(bytes(4096))
        except StoreError:
            os._exit(0)
    os.waitpid(child, 0)
    assert small.free == 0
    filled(place, seed=2)
    assert place.backup().complete
    check_all_that_is_listed(store)


# --- the state directory ---


def test_the_state_directory_is_full(tmp_path: Path, disk: Callable[[str, int], Disk]) -> None:
    """Whatever is left there, an error of ours or success; nothing half-done stays, and what is listed is whole."""
    small = disk("state", 2 * MIB)
    place = filled(Place(tmp_path, stores=[LocalStore("one", tmp_path / "store")]), 100_000)
    snapshot = place.backup().manifest
    for seed, leave in enumerate((0, 4096, 8192, 12288, 16384, 24576, 65536), 2):
        filled(place, 100_000, seed)
        before = fingerprint(place.root())
        ballast = small.fill(leave)
        for operation in (place.backup, lambda: place.restore(snapshot, safety_snapshot=False)):
            try:
                operation()
            except BackupdError as exc:
                assert "space" in str(exc) or "full" in str(exc), exc  # noqa: PT017
        ballast.unlink()
        recover(place.runtime, [place.spec()])
        recover_stores(place.runtime, place.stores)
        assert Journal(place.runtime.state).open_acts() == []
        assert list(place.root().glob(".backupd-*")) == []
        now = fingerprint(place.root())
        assert now == before or (place.root() / "more").read_text() == "1"
        check_all_that_is_listed(place.stores[0])
    assert place.backup().complete


# --- the volume that is restored ---


def test_the_volume_is_full(tmp_path: Path, disk: Callable[[str, int], Disk]) -> None:
    """Too full to begin is told beforehand; one that fills up meanwhile leaves the volume as it was."""
    (tmp_path / "volumes").mkdir()
    small = disk("volumes/data", 10 * MIB)
    place = filled(Place(tmp_path, stores=[LocalStore("one", tmp_path / "store")]))
    snapshot = place.backup().manifest
    filled(place, 1 * MIB, seed=2)
    ballast = small.fill(2 * MIB)
    before = fingerprint(place.root())
    with pytest.raises(SourceError, match=r"room|free|space"):
        place.restore(snapshot, safety_snapshot=False)
    assert differences(before, fingerprint(place.root())) == []
    ballast.unlink()
    read = place.stores[0].read

    def meanwhile(key: str, offset: int = 0, length: int | None = None) -> bytes:
        if key.endswith(".tar.zst") and not ballast.exists():
            small.fill(1 * MIB)
        return read(key, offset, length)

    place.stores[0].read = meanwhile  # type: ignore[method-assign]
    needs = r"the disk of .*data is full: the restored data need 4 MiB .* and \d MiB were free .*; nothing was changed$"
    with pytest.raises(VolumeFull, match=needs) as told:
        place.restore(snapshot, safety_snapshot=False)
    assert "--to-dir" in (told.value.hint or "")
    ballast.unlink()
    before = {path: facts for path, facts in before.items() if path != b"ballast"}
    now = fingerprint(place.root())
    assert {path for path, _ in before.items()} == {*now}
    assert (place.root() / "more").read_text() == "2"
    assert list(place.root().glob(".backupd-*")) == []
    place.stores[0].read = read  # type: ignore[method-assign]
    place.restore(snapshot, safety_snapshot=False)
    assert (place.root() / "more").read_text() == "1"


# --- a store that goes away ---


@pytest.mark.parametrize("how", ["unmounted", "removed", "renamed"])
@pytest.mark.parametrize("at", [1, 3, 5])
def test_the_store_vanishes_in_mid_backup(
    tmp_path: Path, disk: Callable[[str, int], Disk], monkeypatch: pytest.MonkeyPatch, how: str, at: int
) -> None:
    """At its n-th object: an error, or another store. An empty directory in its place does not become a repository."""
    gone = disk("disk", 16 * MIB) if how == "unmounted" else None
    root = tmp_path / "disk"
    root.mkdir(exist_ok=True)
    stores = [LocalStore("one", root / "store"), LocalStore("two", tmp_path / "two")]
    place = filled(Place(tmp_path, stores=[*stores]))
    assert place.backup().complete
    filled(place, seed=2)
    create = stores[0].create
    begun = 0

    def vanishing(key: str, size_hint: int | None = None) -> ObjectWriter:
        nonlocal begun
        begun += 1
        if begun == at:
            if gone is not None:
                gone.detach()
            elif how == "removed":
                shutil.rmtree(root)
            else:
                root.rename(tmp_path / "elsewhere")
        return create(key, size_hint)

    monkeypatch.setattr(stores[0], "create", vanishing)
    result = place.backup()
    assert begun >= at
    assert result.store == "two"
    assert {*result.store_failures} == {"one"}
    monkeypatch.undo()
    check_all_that_is_listed(stores[1])
    again = place.backup()  # the directory is empty, or not there
    assert {*again.store_failures} == {"one"}
    assert "is it mounted?" in again.store_failures["one"]
    if how == "renamed":
        shutil.rmtree(root, ignore_errors=True)
        (tmp_path / "elsewhere").rename(root)
        recover_stores(place.runtime, place.stores)
        assert place.backup().complete
        assert place.repository(0).snapshot_ids() == place.repository(1).snapshot_ids()
        check_all_that_is_listed(stores[0])


def test_the_only_store_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = filled(Place(tmp_path, stores=[LocalStore("one", tmp_path / "one")]))
    place.backup()
    (tmp_path / "one").rename(tmp_path / "away")
    with pytest.raises(StoreError, match="is it mounted"):
        place.backup()
    assert not (tmp_path / "one" / "backupd.json").exists()
    elsewhere = make_runtime(tmp_path / "another state")
    assert elsewhere.state != place.runtime.state
    with pytest.raises(BackupdError):
        place.repository()
    target = VolumeSpec("--to-dir", path=str(tmp_path / "out"))
    shutil.rmtree(tmp_path / "one", ignore_errors=True)
    (tmp_path / "away").rename(tmp_path / "one")
    place.restore(place.repository().resolve("latest"), into=target)
    assert differences(fingerprint(place.root()), fingerprint(tmp_path / "out")) == []
