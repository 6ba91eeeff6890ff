"""S3 servers for tests, each started once a session on loopback, with fixtures for them and for stores on them.

`moto_s3` is quick and lenient, `seaweedfs_s3` (HTTP) and `seaweedfs_s3_tls` (TLS with a CA of its own) are one real
server. `any_store` is a fresh, empty store, once for every kind; ask for `s3_server` to get only the S3 ones' servers.

With BACKUPD_TEST_S3 another server takes SeaweedFS's place, such as a Ceph RGW; several addresses, with a blank between
them, are one server's: `https://KEY:SECRET@localhost:8443`. AWS_CA_BUNDLE is for TLS. It keeps the buckets.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import boto3
import pytest
from msgspec import structs

from backupd.model import LockPolicy
from backupd.ports import Clock, Store
from backupd.repository import layout
from backupd.stores import LocalStore, MemoryStore, S3Options
from backupd.stores.s3 import S3Store
from backupd.stores.s3 import client as s3_client
from backupd.wiring import SystemClock
from tests.support import seaweedfs

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

MIB = 1024 * 1024
S3_KINDS = ("moto_s3", "seaweedfs_s3", "seaweedfs_s3_tls")
OTHER = os.environ.get("BACKUPD_TEST_S3", "").split()
UNLOCKED = (layout.LEASES, layout.PROBES)
STORE_KINDS = ("memory", "local", *(pytest.param(kind, marks=pytest.mark.s3) for kind in S3_KINDS))


@dataclass(frozen=True)
class S3Server:
    """A running server, its credentials and a bucket that tests share, each below a prefix of its own.

    `strict` servers check signatures. SeaweedFS reserves disk volumes for each bucket, so make few of them.
    """

    endpoint_url: str
    access_key_id: str
    secret_access_key: str
    ca_bundle: str | None = None
    strict: bool = True
    bucket: str = "shared"

    def options(self, **changes: Any) -> S3Options:
        """Options for a fresh prefix of the shared bucket, with small parts and few tries."""
        chosen: dict[str, Any] = {
            "bucket": self.bucket,
            "prefix": f"tests/{secrets.token_hex(6)}",
            "endpoint_url": self.endpoint_url,
            "access_key_id": self.access_key_id,
            "secret_access_key": self.secret_access_key,
            "ca_bundle": self.ca_bundle,
            "part_size_bytes": 5 * MIB,
            "max_attempts": 3,
        }
        return S3Options(**(chosen | changes))

    def client(self) -> S3Client:
        """A plain boto3 client, to look behind the store's back. The caller closes it."""
        return boto3.Session(self.access_key_id, self.secret_access_key).client(
            "s3", endpoint_url=self.endpoint_url, region_name="us-east-1", verify=self.ca_bundle
        )

    def make_bucket(self, name: str, *, locks: bool = False) -> str:
        """A bucket of that name, with object lock if wanted; its name."""
        client = self.client()
        client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=locks)
        client.close()
        return name

    def locking(self) -> S3Server:
        """The same with the shared bucket that has object lock."""
        return replace(self, bucket=f"{self.bucket}-locked")


@pytest.fixture(scope="session")
def moto_s3() -> Iterator[S3Server]:
    """A moto server in this process. It knows no wrong secrets."""
    from moto.server import ThreadedMotoServer  # noqa: PLC0415  (slow to import, for sessions without S3 tests)

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        moto = S3Server(f"http://{host}:{port}", "test", "test", strict=False)
        moto.make_bucket(moto.bucket)
        moto.make_bucket(moto.locking().bucket, locks=True)
        yield moto
    finally:
        server.stop()


def other(address: str, bucket: str) -> S3Server:
    """A server that somebody else has started."""
    parts = urlsplit(address)
    url, tls = f"{parts.scheme}://{parts.hostname}:{parts.port}", parts.scheme == "https"
    ca_bundle = os.environ["AWS_CA_BUNDLE"] if tls else None
    return S3Server(url, parts.username or "", parts.password or "", ca_bundle, bucket=bucket)


@pytest.fixture(scope="session")
def seaweedfs_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[seaweedfs.SeaweedFS]:
    """SeaweedFS as a process of its own."""
    with seaweedfs.running(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


@pytest.fixture(scope="session")
def seaweedfs_s3(request: pytest.FixtureRequest) -> S3Server:
    """SeaweedFS over HTTP, or the first address of another."""
    if OTHER:
        server = other(OTHER[0], f"shared-{secrets.token_hex(4)}")
    else:
        url = request.getfixturevalue("seaweedfs_server").http_url
        server = S3Server(url, seaweedfs.ACCESS_KEY, seaweedfs.SECRET_KEY)
    server.make_bucket(server.bucket)
    server.make_bucket(server.locking().bucket, locks=True)
    return server


@pytest.fixture(scope="session")
def seaweedfs_s3_tls(request: pytest.FixtureRequest, seaweedfs_s3: S3Server) -> S3Server:
    """The same server over TLS, or at another's last address."""
    if OTHER:
        return other(OTHER[-1], seaweedfs_s3.bucket)
    server: seaweedfs.SeaweedFS = request.getfixturevalue("seaweedfs_server")
    return replace(seaweedfs_s3, endpoint_url=server.https_url, ca_bundle=str(server.ca_bundle))


@pytest.fixture(params=[pytest.param(kind, marks=pytest.mark.s3) for kind in S3_KINDS])
def s3_server(request: pytest.FixtureRequest) -> S3Server:
    """Every S3 server in turn."""
    server: S3Server = request.getfixturevalue(request.param)
    return server


@pytest.fixture
def make_s3_store() -> Iterator[Callable[..., S3Store]]:
    """Makes S3 stores on a server, in a fresh prefix unless told otherwise, that are closed after the test."""
    made: list[S3Store] = []

    def make(server: S3Server, findings: Path | None = None, clock: Clock | None = None, **changes: Any) -> S3Store:
        store = S3Store("test", server.options(**changes), clock or SystemClock(), findings)
        made.append(store)
        return store

    yield make
    for store in made:
        store.close()


@pytest.fixture(params=["memory", *(pytest.param(kind, marks=pytest.mark.s3) for kind in S3_KINDS[:2])])
def make_locking_store(
    request: pytest.FixtureRequest, make_s3_store: Callable[..., S3Store]
) -> Callable[[LockPolicy], Store]:
    """Makes fresh stores of every kind that can lock objects, in turn."""
    if request.param == "memory":
        return lambda policy: MemoryStore("test", lock=policy, unlocked=UNLOCKED)
    server: S3Server = request.getfixturevalue(request.param)
    return lambda policy: make_s3_store(server.locking(), lock=policy, unlocked=UNLOCKED)


@pytest.fixture(scope="session")
def shared_clients() -> Callable[..., S3Client]:
    """One boto3 client for stores that differ in the prefix only: making one takes as long as a test."""

    @cache
    def make(options: S3Options, *, checksums: bool) -> S3Client:
        return honest(options, checksums=checksums)

    honest = s3_client._make_client
    return lambda options, *, checksums: make(structs.replace(options, prefix=""), checksums=checksums)


@pytest.fixture(params=STORE_KINDS)
def any_store(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_s3_store: Callable[..., S3Store],
    shared_clients: Callable[..., S3Client],
) -> Store:
    """A fresh store of every kind in turn."""
    monkeypatch.setattr(s3_client, "_make_client", shared_clients)
    if request.param == "memory":
        return MemoryStore("test")
    if request.param == "local":
        return LocalStore("test", tmp_path / "store")
    return make_s3_store(request.getfixturevalue(request.param))
