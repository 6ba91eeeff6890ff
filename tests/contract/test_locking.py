"""What a store that locks objects or keeps old versions must do: the contract of `backupd.locking`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from backupd.errors import ObjectNotFound, StoreDenied, StoreError
from backupd.locking import Locks, locks_of, versions_of
from backupd.model import LockPolicy
from backupd.ports import Store
from backupd.stores.s3 import S3Store
from tests.support.s3 import MIB, UNLOCKED, S3Server

DAY = timedelta(days=1)
POLICY = LockPolicy("governance", DAY)
MakeLocking = Callable[[LockPolicy], Store]


def locks(store: Store) -> Locks:
    found = locks_of(store)
    assert found is not None
    return found


def write(store: Store, key: str, data: bytes) -> None:
    with store.create(key) as writer:
        writer.write(data)
        writer.commit()


def test_a_store_without_locks_and_versions_says_so(any_store: Store) -> None:
    any_store.put("a", b"a")
    assert locks_of(any_store) is None
    assert versions_of(any_store) is None


@pytest.mark.parametrize("mode", ["governance", "compliance"])
def test_every_way_of_writing_locks(make_locking_store: MakeLocking, mode: str) -> None:
    """RGW and moto ignore what CreateMultipartUpload asks for: the lock is set afterwards there."""
    store = make_locking_store(LockPolicy(mode, timedelta(seconds=30)))  # type: ignore[arg-type]
    begun = datetime.now(UTC)
    store.put("put", b"1")
    write(store, "one part", b"2")
    write(store, "parts", os.urandom(6 * MIB))
    for key in ("put", "one part", "parts"):
        until = locks(store).until(key)
        assert until is not None, key
        assert begun + timedelta(seconds=29) <= until <= datetime.now(UTC) + timedelta(seconds=38), key


def test_leases_and_probes_are_not_locked(make_locking_store: MakeLocking) -> None:
    store = make_locking_store(POLICY)
    for key in ("leases/0123456789abcdef.1.json", "probe/x"):
        store.put(key, b"{}")
        assert locks(store).until(key) is None
        store.delete(key)
        assert [info.key for info in store.list()] == []


def test_a_lock_is_extended_when_it_is_due_and_never_shortened(make_locking_store: MakeLocking) -> None:
    store = make_locking_store(POLICY)
    store.put("a", b"a")
    first = locks(store).until("a")
    assert first is not None
    now = datetime.now(UTC)
    assert not locks(store).extend("a", now)
    assert not locks(store).extend("a", now - 300 * DAY)
    assert locks(store).until("a") == first
    later = first - DAY + timedelta(minutes=1)
    assert locks(store).extend("a", later)
    second = locks(store).until("a")
    assert second is not None
    assert second > first
    assert not locks(store).extend("a", later)
    assert locks(store).until("a") == second


def test_what_is_absent_has_no_lock(make_locking_store: MakeLocking) -> None:
    store = make_locking_store(POLICY)
    with pytest.raises(ObjectNotFound):
        locks(store).until("a")
    with pytest.raises(ObjectNotFound):
        locks(store).extend("a", datetime.now(UTC))


def test_a_lock_ends(make_locking_store: MakeLocking) -> None:
    store = make_locking_store(LockPolicy("compliance", timedelta(seconds=1)))
    store.put("a", b"a")
    time.sleep(2)
    assert locks(store).until("a") is None
    store.delete("a")


def test_what_is_locked_cannot_be_removed_for_good(
    make_locking_store: MakeLocking, request: pytest.FixtureRequest
) -> None:
    store = make_locking_store(LockPolicy("compliance", DAY))
    store.put("a", b"a")
    if not isinstance(store, S3Store):
        with pytest.raises(StoreDenied):
            store.delete("a")
        return
    bucket = store._bucket
    version = bucket.look("a").version
    assert version is not None
    store.delete("a")  # it is hidden
    assert [info.key for info in store.list()] == []
    with pytest.raises(StoreDenied), bucket.errors("deleting for good"):
        bucket.client.delete_object(**bucket.where("a"), VersionId=version, BypassGovernanceRetention=True)
    assert bucket.client.get_object(**bucket.where("a"), VersionId=version)["Body"].read() == b"a"


@pytest.mark.s3
@pytest.mark.parametrize("kind", ["moto_s3", "seaweedfs_s3"])
class TestVersions:
    @pytest.fixture
    def server(self, request: pytest.FixtureRequest, kind: str) -> S3Server:
        server: S3Server = request.getfixturevalue(kind)
        return server.locking()

    def tidied(self, store: Store, before: datetime) -> tuple[int, int, int, int]:
        versions = versions_of(store)
        assert versions is not None
        old = versions.tidy(before)
        return old.count, old.bytes, old.purged_count, old.purged_bytes

    def test_deleted_objects_are_counted_and_stay(
        self, server: S3Server, make_s3_store: Callable[..., S3Store]
    ) -> None:
        store = make_s3_store(server)
        store.put("a/1", b"123")
        store.put("a/2", b"12345")
        later = datetime.now(UTC) + timedelta(minutes=1)
        count, size, *_ = self.tidied(store, later)  # the probe's were deleted, too
        store.delete("a/1")
        assert self.tidied(store, later) == (count + 1, size + 3, 0, 0)

    def test_they_are_purged_where_that_is_wanted(
        self, server: S3Server, make_s3_store: Callable[..., S3Store]
    ) -> None:
        store = make_s3_store(server, purge_versions=True)
        store.put("a/1", b"123")
        store.put("a/2", b"12345")
        early, later = datetime.now(UTC) - timedelta(minutes=1), datetime.now(UTC) + timedelta(minutes=1)
        count, size, *_ = self.tidied(store, early)
        store.delete("a/1")
        store.put("a/1", b"anew")
        store.delete("a/1")
        assert self.tidied(store, early) == (count + 2, size + 7, 0, 0)
        assert self.tidied(store, later) == (0, 0, count + 2, size + 7)
        assert self.tidied(store, later) == (0, 0, 0, 0)
        assert [info.key for info in store.list()] == ["a/2"]
        listed = store._bucket.client.list_object_versions(
            Bucket=store._options.bucket, Prefix=store._options.key_prefix
        )
        assert listed.get("DeleteMarkers", []) == []
        assert len(listed["Versions"]) == 1

    def test_locked_ones_are_left_with_the_end_of_their_lock(
        self, server: S3Server, make_s3_store: Callable[..., S3Store]
    ) -> None:
        store = make_s3_store(server, purge_versions=True, lock=POLICY, unlocked=UNLOCKED)
        store.put("a", b"123")
        until = locks(store).until("a")
        store.delete("a")
        versions = versions_of(store)
        assert versions is not None
        assert versions.tidy(datetime.now(UTC) + timedelta(minutes=1)).locked == (("a", until),)
        with pytest.raises(ObjectNotFound):  # and the marker is there still
            store.stat("a")

    def test_what_was_written_over_is_not_touched(
        self, server: S3Server, make_s3_store: Callable[..., S3Store]
    ) -> None:
        """Somebody else did that: the version below is the good one."""
        store = make_s3_store(server, purge_versions=True)
        store.put("a", b"good")
        store._bucket.client.put_object(**store._bucket.where("a"), Body=b"bad")
        self.tidied(store, datetime.now(UTC) + timedelta(minutes=1))
        listed = store._bucket.client.list_object_versions(
            Bucket=store._options.bucket, Prefix=store._options.key_prefix + "a"
        )
        assert len(listed["Versions"]) == 2


@pytest.mark.s3
@pytest.mark.parametrize("kind", ["moto_s3", "seaweedfs_s3"])
def test_a_bucket_without_object_lock_is_an_error(
    request: pytest.FixtureRequest, kind: str, make_s3_store: Callable[..., S3Store]
) -> None:
    store = make_s3_store(request.getfixturevalue(kind), lock=POLICY)
    for data in (b"a", os.urandom(6 * MIB)):
        with pytest.raises(StoreError) as caught:
            write(store, "a", data)
        assert "object lock" in str(caught.value.hint)
