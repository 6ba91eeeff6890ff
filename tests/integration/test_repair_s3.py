"""Damage in a bucket: restores are whole all the same, and a repair puts things right, locked buckets included."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from backupd.locking import locks_of
from backupd.model import LockPolicy, VolumeSpec
from backupd.repository import Elsewhere, Manifest, layout
from backupd.restore.operation import restore
from backupd.restore.target import RestoreRequest, plan_restore
from backupd.stores import LocalStore
from backupd.stores.s3 import S3Store
from backupd.verify.operation import verify
from backupd.verify.result import StoreVerified, VerifyRequest
from backupd.wiring import SystemClock, new_id
from tests.support.keys import Machine, use
from tests.support.runtime import Place, put, stored
from tests.support.s3 import UNLOCKED, S3Server
from tools.fingerprint import Facts, fingerprint

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

pytestmark = pytest.mark.s3

REPAIR = VerifyRequest(fraction=1.0, repair=True)
LOCKED = {"lock": LockPolicy("compliance", timedelta(days=30)), "unlocked": UNLOCKED}
KINDS = {
    "plain": ("seaweedfs_s3", {}),
    "locked": ("seaweedfs_s3", LOCKED),
    "locked, moto": ("moto_s3", LOCKED),
}


@dataclass
class Bucket:
    """The bucket of store `away`, as somebody sees it who has a client and means harm."""

    client: S3Client
    store: S3Store
    locked: bool
    where: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.where = {"Bucket": self.store._options.bucket}

    def key(self, key: str) -> dict[str, Any]:
        return {**self.where, "Key": self.store._options.key_prefix + key}

    def write_over(self, key: str, data: bytes) -> None:
        self.client.put_object(**self.key(key), Body=data)

    def delete(self, key: str) -> None:
        self.client.delete_object(**self.key(key))

    def versions(self, key: str) -> list[bytes]:
        """The content of all versions of an object, newest first."""
        where = self.key(key)
        listed = self.client.list_object_versions(Bucket=where["Bucket"], Prefix=where["Key"])["Versions"]
        return [self.client.get_object(**where, VersionId=one["VersionId"])["Body"].read() for one in listed]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> tuple[S3Server, dict[str, Any]]:
    name, options = KINDS[request.param]
    server: S3Server = request.getfixturevalue(name)
    return (server.locking() if options else server), options


@pytest.fixture
def bucket(kind: tuple[S3Server, dict[str, Any]], make_s3_store: Callable[..., S3Store]) -> Iterator[Bucket]:
    server, options = kind
    with closing(server.client()) as client:
        yield Bucket(client, make_s3_store(server, **options), bool(options))


@pytest.fixture
def place(tmp_path: Path, bucket: Bucket) -> Place:
    """Two snapshots in a bucket and in a directory: of 7 MB, a multipart upload, and of what was changed then."""
    place = Place(tmp_path, stores=[bucket.store, LocalStore("near", tmp_path / "near")])
    place.runtime = replace(place.runtime, clock=SystemClock(), new_id=new_id)
    use(place, Machine(place.runtime.state).security())
    place.root().mkdir(parents=True)
    (place.root() / "big").write_bytes(random.Random(1).randbytes(7_000_000))
    place.backup()
    (place.root() / "small").write_text("more")
    assert place.backup().stores == ("test", "near")
    return place


def restored(place: Place, manifest: Manifest, first: int) -> dict[bytes, Facts]:
    """From one store, helped by the other, as `backupd restore` does."""
    other = place.stores[1 - first]
    repository = place.repository(first).helped_by(Elsewhere({other.name: lambda: other}, place.runtime.progress.note))
    target = place.base / f"restored-{manifest.id}-{first}"
    request = RestoreRequest(into=VolumeSpec("--to-dir", path=str(target)))
    restore(plan_restore(request, manifest, repository, place.runtime, {}), request, repository, place.runtime)
    return fingerprint(target)


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def harm(place: Place, bucket: Bucket) -> set[str]:
    """Objects in the bucket written over and deleted, of every kind; their keys. Of one, neither store has it whole."""
    newest, oldest = place.repository().snapshots()[0]
    new, old = newest.archives[0], oldest.archives[0]
    data = old.needs[0].key
    whole = bucket.store.read(data)
    bucket.write_over(data, flipped(whole, 1000))
    put(place.stores[1], data, flipped(whole, len(whole) - 1000))
    bucket.delete(new.needs[0].key)
    bucket.write_over(old.index.key, bucket.store.read(old.index.key)[:-1])
    bucket.delete(new.index.key)
    bucket.write_over(new.files.key, b"")
    bucket.delete(layout.snapshot(oldest.id))
    return {data, new.needs[0].key, old.index.key, new.index.key, new.files.key, layout.snapshot(oldest.id)}


def repaired(place: Place) -> StoreVerified:
    verified = verify(place.stores, REPAIR, place.runtime, random.Random(1))
    verified.require_good()
    return verified.stores[0]


def test_a_day_of_damage(place: Place, bucket: Bucket) -> None:
    whole, expected = stored(bucket.store), fingerprint(place.root())
    newest, oldest = place.repository().snapshots()[0]
    good = place.stores[1].read(oldest.archives[0].needs[0].key)
    hurt = harm(place, bucket)
    for first in (0, 1):
        assert restored(place, newest, first) == expected, "each gives what the other lacks"

    put(place.stores[1], oldest.archives[0].needs[0].key, good)
    bucket.delete(layout.CONFIG)
    found = repaired(place)
    assert found.repaired is not None
    assert found.repaired.mended.keys() == hurt | {layout.CONFIG}
    after = stored(bucket.store)
    assert {key: data for key, data in after.items() if key in whole and key != layout.CONFIG} == {
        key: data for key, data in whole.items() if key != layout.CONFIG
    }
    assert after.keys() - whole.keys() == {key for key in after if layout.recorded_snapshot(key)}
    assert restored(place, oldest, 0).keys() == expected.keys() - {b"small"}


@pytest.mark.parametrize("kind", ["locked", "locked, moto"], indirect=True)
def test_in_a_locked_bucket_a_new_version_comes_to_lie_on_top(place: Place, bucket: Bucket) -> None:
    locks = locks_of(bucket.store)
    assert locks is not None
    hurt = harm(place, bucket)
    before = {key: bucket.versions(key) for key in hurt}
    for key, versions in before.items():
        put(place.stores[1], key, versions[-1])  # nobody else has damaged anything
    repaired(place)
    for key, versions in before.items():
        assert bucket.versions(key) == [versions[-1], *versions], "nothing that was there is gone"
        until = locks.until(key)
        assert until is not None, "and it is locked again"
        assert until > place.runtime.clock.now() + timedelta(days=29)
