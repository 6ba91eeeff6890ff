"""Opening repositories, finding snapshots, and the documents they are made of."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta

import msgspec
import pytest

from backupd.archive import ChunkerParameters
from backupd.errors import IntegrityError, ObjectExists, RepositoryError, SnapshotNotFound
from backupd.model import ObjectInfo
from backupd.repository import Manifest, Reason, Repository, RepositoryConfig
from backupd.repository.documents import decode, encode
from backupd.stores.memory import MemoryStore
from tests.support.runtime import BEGIN, CountingIds, put


def create(store: MemoryStore) -> Repository:
    return Repository.open_or_create(store, threads=1, now=BEGIN, new_id=CountingIds(), chunker=ChunkerParameters())


def manifest(id_: str, minutes: int = 0, reason: Reason = "backup") -> Manifest:
    time = BEGIN + timedelta(minutes=minutes)
    return Manifest(id=id_, time=time, finished=time, plan="p", reason=reason, host="h", program="b", archives=[])


@pytest.fixture
def repository() -> Repository:
    repository = create(MemoryStore("m"))
    for number, id_ in enumerate(("aaaa0000", "aaaa1111", "bbbb0000")):
        repository.commit(manifest(id_, number))
    return repository


def test_created_once() -> None:
    store = MemoryStore("m")
    assert create(store).config == create(store).config == Repository.open(store, threads=1).config


def test_no_repository() -> None:
    with pytest.raises(RepositoryError, match="holds no repository") as caught:
        Repository.open(MemoryStore("m"), threads=1)
    assert caught.value.exit_code == 10


def test_other_files() -> None:
    store = MemoryStore("m")
    store.put("holiday.jpg", b"x")
    with pytest.raises(RepositoryError, match=r"not empty: it holds holiday\.jpg"):
        create(store)
    assert [info.key for info in store.list()] == ["holiday.jpg"]


def test_a_probe_is_nothing_strange() -> None:
    store = MemoryStore("m")
    store.put("probe/x", b"x")
    create(store)


@pytest.mark.parametrize("moment", ["before the list", "before the put"])
def test_another_process_is_faster(moment: str) -> None:
    class Racing(MemoryStore):
        created = False

        def list(self, prefix: str = ""):  # type: ignore[no-untyped-def]
            if moment == "before the list":
                self.other()
            found = list(super().list(prefix))
            if moment == "before the put":
                self.other()
            return iter(found)

        def other(self) -> None:
            if self.created:
                return
            self.created = True
            super().put(
                "backupd.json", encode(RepositoryConfig(id="other", created=BEGIN, chunker=ChunkerParameters()))
            )
            super().put("archives/v/x.tar.zst", b"x")
            super().put("snapshots/aaaaaaaa.json", b"{}")

    assert create(Racing("m")).config.id == "other"


def test_newer_format() -> None:
    store = MemoryStore("m")
    config = create(store).config
    put(store, "backupd.json", encode(msgspec.structs.replace(config, format=3)))
    for action in (create, lambda store: Repository.open(store, threads=1)):
        with pytest.raises(RepositoryError, match="of format 3, and this backupd reads format 2") as caught:
            action(store)
        assert caught.value.exit_code == 10
        assert caught.value.hint is not None


@pytest.mark.parametrize("content", [b"", b"garbage", b"{}", b'{"format":1}', b"\xff" * 100, b"null"])
def test_garbage(content: bytes) -> None:
    store = MemoryStore("m")
    store.put("backupd.json", content)
    with pytest.raises(IntegrityError, match="damaged"):
        create(store)
    store.put("snapshots/aaaaaaaa.json", content)
    repository = Repository(store, RepositoryConfig(id="x", created=BEGIN, chunker=ChunkerParameters()), 1)
    manifests, damaged = repository.snapshots()
    assert manifests == []
    assert len(damaged) == 1


def test_manifest_of_another_snapshot(repository: Repository) -> None:
    put(repository.store, "snapshots/aaaa1111.json", repository.store.read("snapshots/aaaa0000.json"))
    with pytest.raises(IntegrityError, match="manifest of another snapshot"):
        repository.resolve("aaaa1111")


def test_sealed_documents() -> None:
    """Every flipped bit is seen, and so are fields that a later version added."""
    data = encode(manifest("aaaa0000"))
    assert decode(data, Manifest, "k") == manifest("aaaa0000")
    assert msgspec.json.decode(data)["blake3"]
    for position in range(len(data)):
        for bit in (0, 3, 7):
            wrong = data[:position] + bytes([data[position] ^ (1 << bit)]) + data[position + 1 :]
            with pytest.raises(IntegrityError):
                decode(wrong, Manifest, "k")
    for length in range(len(data)):
        with pytest.raises(IntegrityError):
            decode(data[:length], Manifest, "k")


def test_unknown_fields_are_left_alone() -> None:
    class Later(RepositoryConfig, frozen=True, kw_only=True):
        news: str = "x"

    config = Later(id="x", created=BEGIN, chunker=ChunkerParameters())
    assert decode(encode(config), RepositoryConfig, "k").id == "x"


def test_a_snapshot_is_committed_once(repository: Repository) -> None:
    with pytest.raises(ObjectExists):
        repository.commit(manifest("aaaa0000"))


class TestResolve:
    def test_ids(self, repository: Repository) -> None:
        assert repository.resolve("bbbb0000").id == "bbbb0000"
        assert repository.resolve("b").id == "bbbb0000"
        assert repository.resolve("AAAA1").id == "aaaa1111"
        assert repository.resolve("latest").id == "bbbb0000"

    @pytest.mark.parametrize("name", ["cccc", "", "aaaa00001", "../backupd", "bbbb0000.json"])
    def test_unknown(self, repository: Repository, name: str) -> None:
        with pytest.raises(SnapshotNotFound) as caught:
            repository.resolve(name)
        assert caught.value.exit_code == 10

    def test_ambiguous(self, repository: Repository) -> None:
        with pytest.raises(SnapshotNotFound, match="2 snapshots begin with 'aaaa': aaaa0000, aaaa1111"):
            repository.resolve("aaaa")

    def test_latest_is_what_a_plan_took(self, repository: Repository) -> None:
        repository.commit(manifest("cccc0000", 10, "safety"))
        assert repository.resolve("latest").id == "bbbb0000"
        repository.commit(manifest("dddd0000", 11, "import"))
        assert repository.resolve("latest").id == "bbbb0000"

    def test_latest_of_nothing(self) -> None:
        repository = create(MemoryStore("m"))
        with pytest.raises(SnapshotNotFound, match="no snapshot yet"):
            repository.resolve("latest")
        repository.store.put("snapshots/aaaaaaaa.json", b"garbage")
        with pytest.raises(IntegrityError):
            repository.resolve("latest")


def test_other_objects_are_no_snapshots(repository: Repository) -> None:
    for key in (
        "snapshots/x.json",
        "snapshots/aaaa2222.json.tmp",
        "snapshots/sub/aaaa2222.json",
        "snapshots/AAAA2222.json",
    ):
        repository.store.put(key, b"x")
    assert repository.snapshot_ids() == {"aaaa0000", "aaaa1111", "bbbb0000"}


def test_newest_first_and_pruned_meanwhile(repository: Repository) -> None:
    class Ghost(MemoryStore):
        def list(self, prefix: str = ""):  # type: ignore[no-untyped-def]
            yield from repository.store.list(prefix)
            yield ObjectInfo("snapshots/dddddddd.json", 1)

        def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
            return repository.store.read(key, offset, length)

    manifests, damaged = Repository(Ghost("g"), repository.config, 1).snapshots()
    assert [found.id for found in manifests] == ["bbbb0000", "aaaa1111", "aaaa0000"]
    assert damaged == []


def test_threads_may_be_the_first_to_decode() -> None:
    """In a process of its own, since this one has decoded before. msgspec's lazy preparation crashed here."""
    program = """
import sys, threading
from concurrent.futures import ThreadPoolExecutor
from backupd.repository import Manifest
from backupd.repository.documents import decode
sys.setswitchinterval(1e-6)
data, barrier = sys.stdin.buffer.read(), threading.Barrier(8)
def first(_):
    barrier.wait()
    return decode(data, Manifest, "k").id
with ThreadPoolExecutor(8) as pool:
    assert set(pool.map(first, range(8))) == {"aaaa0000"}
"""
    for _ in range(5):
        done = subprocess.run([sys.executable, "-c", program], input=encode(manifest("aaaa0000")), capture_output=True)
        assert done.returncode == 0, done.stderr.decode()
