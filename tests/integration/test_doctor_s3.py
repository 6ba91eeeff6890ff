"""The doctor at real S3 servers: what it says of rights, locks and rules is what is so."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from backupd.facts import BucketFacts
from backupd.model import LockPolicy
from backupd.stores.s3 import S3Store
from tests.support import s3_proxy, seaweedfs
from tests.support.cli import Cli
from tests.support.s3 import UNLOCKED, S3Server
from tests.support.s3_proxy import Action, Answer, Request

pytestmark = pytest.mark.s3

MakeStore = Callable[..., S3Store]
COMPLIANCE = LockPolicy("compliance", timedelta(days=30))
GOVERNANCE = LockPolicy("governance", timedelta(days=30))


def as_identity(server: S3Server, access_key_id: str, secret_access_key: str) -> S3Server:
    return replace(server, access_key_id=access_key_id, secret_access_key=secret_access_key)


def limited(server: S3Server) -> S3Server:
    return as_identity(server, seaweedfs.LIMITED_ACCESS_KEY, seaweedfs.LIMITED_SECRET_KEY)


@pytest.fixture
def denying(seaweedfs_s3: S3Server) -> Iterator[Callable[[S3Server, str], None]]:
    """Makes the server deny actions in a bucket of it, by a policy, until the test ends."""
    client = seaweedfs_s3.client()
    changed = []

    def deny(server: S3Server, *actions: str) -> None:
        resource = f"arn:aws:s3:::{server.bucket}/*"
        statement = {"Effect": "Deny", "Principal": "*", "Action": list(actions), "Resource": [resource]}
        policy = {"Version": "2012-10-17", "Statement": [statement]}
        client.put_bucket_policy(Bucket=server.bucket, Policy=json.dumps(policy))
        changed.append(server.bucket)

    with closing(client):
        yield deny
        for bucket in changed:
            client.delete_bucket_policy(Bucket=bucket)


def examined(make_s3_store: MakeStore, server: S3Server, **options: Any) -> BucketFacts:
    return make_s3_store(server, unlocked=UNLOCKED, **options).examine()


def test_a_plain_bucket(s3_server: S3Server, make_s3_store: MakeStore) -> None:
    store = make_s3_store(s3_server)
    facts = store.examine()
    assert (facts.lists, facts.reads, facts.writes, facts.conditional) == (True, True, True, True)
    assert (facts.overwrites, facts.deletes, facts.versioned) == (True, True, False)
    assert (facts.lock_enabled, facts.lock_holds, facts.lifecycle) == (False, None, ())
    assert facts.skew_seconds == 0.0
    assert facts.trouble == {}
    assert list(store.list()) == [], "it leaves nothing"


@pytest.mark.parametrize("kind", ["moto_s3", "seaweedfs_s3"])
def test_a_lock_that_can_be_lifted_and_one_that_cannot(
    request: pytest.FixtureRequest, kind: str, make_s3_store: MakeStore
) -> None:
    server: S3Server = request.getfixturevalue(kind).locking()
    governance = examined(make_s3_store, server, lock=GOVERNANCE)
    assert (governance.versioned, governance.lock_enabled, governance.removes_versions) == (True, True, True)
    assert (governance.lock_holds, governance.lock_bypassed) == (True, True)
    compliance = examined(make_s3_store, server, lock=COMPLIANCE)
    assert (compliance.lock_holds, compliance.lock_bypassed) == (True, None)


def test_credentials_that_cannot_lift_a_lock(seaweedfs_s3: S3Server, make_s3_store: MakeStore) -> None:
    facts = examined(make_s3_store, limited(seaweedfs_s3.locking()), lock=GOVERNANCE)
    assert (facts.lock_holds, facts.lock_bypassed) == (True, False)


def test_nothing_but_the_locked_probe_is_left(seaweedfs_s3: S3Server, make_s3_store: MakeStore) -> None:
    store = make_s3_store(seaweedfs_s3.locking(), lock=COMPLIANCE, unlocked=UNLOCKED)
    store.examine()
    assert list(store.list()) == []
    left = store._bucket.client.list_object_versions(
        Bucket=store._options.bucket, Prefix=f"{store._options.key_prefix}probe/"
    )
    sizes = [version["Size"] for version in left["Versions"]]
    assert sizes.count(len(b"locked")) == 1
    looked = len(b"probe/") + 16
    assert set(sizes) == {len(b"locked"), looked}, "besides, the first look of all writers left what is hidden"


def test_credentials_that_may_only_read(seaweedfs_s3: S3Server, make_s3_store: MakeStore) -> None:
    reading = as_identity(seaweedfs_s3, seaweedfs.READING_ACCESS_KEY, seaweedfs.READING_SECRET_KEY)
    facts = examined(make_s3_store, reading)
    assert (facts.lists, facts.writes, facts.deletes, facts.overwrites) == (True, False, None, None)
    assert "AccessDenied" in facts.trouble["writes"]


def test_credentials_that_may_not_see_settings(seaweedfs_s3: S3Server, make_s3_store: MakeStore) -> None:
    facts = examined(make_s3_store, limited(seaweedfs_s3))
    assert (facts.writes, facts.deletes, facts.lock_enabled) == (True, True, None)
    assert "AccessDenied" in facts.trouble["lock_enabled"]


def test_deletes_that_a_policy_denies(
    seaweedfs_s3: S3Server, make_s3_store: MakeStore, denying: Callable[..., None]
) -> None:
    server = replace(seaweedfs_s3, bucket=seaweedfs_s3.make_bucket("doctor-no-delete"))
    denying(server, "s3:DeleteObject", "s3:DeleteObjectVersion")
    facts = examined(make_s3_store, limited(server))
    assert (facts.writes, facts.overwrites, facts.deletes) == (True, True, False)


def test_versions_that_a_policy_protects(
    seaweedfs_s3: S3Server, make_s3_store: MakeStore, denying: Callable[..., None]
) -> None:
    server = replace(seaweedfs_s3, bucket=seaweedfs_s3.make_bucket("doctor-keeps-versions", locks=True))
    denying(server, "s3:DeleteObjectVersion")
    facts = examined(make_s3_store, limited(server), lock=COMPLIANCE)
    assert (facts.deletes, facts.versioned, facts.removes_versions) == (True, True, False)


def test_a_policy_that_lets_nothing_be_written_over(seaweedfs_s3: S3Server, make_s3_store: MakeStore) -> None:
    """AWS has a condition key for that (s3:if-none-match); here a proxy stands for it. Everything works but prune."""

    def no_overwrite(request: Request) -> Action | None:
        plain = request.method == "PUT" and "partNumber" not in request.path and not request.has("if-none-match")
        return Answer(403, "AccessDenied") if plain or request.method == "DELETE" else None

    with s3_proxy.running(seaweedfs_s3.endpoint_url) as proxy:
        proxy.rules.append(no_overwrite)
        server = replace(seaweedfs_s3, endpoint_url=proxy.endpoint_url)
        store = make_s3_store(server)
        facts = store.examine()
        assert (facts.writes, facts.reads, facts.conditional) == (True, True, True)
        assert (facts.overwrites, facts.deletes) == (False, False)
        store.put("a", b"a")
        with store.create("big") as writer:
            writer.write(bytes(6 * 1024 * 1024))
            writer.commit()
        assert store.read("a") == b"a"


@pytest.mark.parametrize("kind", ["moto_s3", "seaweedfs_s3"])
def test_lifecycle_rules(request: pytest.FixtureRequest, kind: str, make_s3_store: MakeStore) -> None:
    plain: S3Server = request.getfixturevalue(kind)
    server = replace(plain, bucket=plain.make_bucket("doctor-lifecycle"))
    rules: list[Any] = [
        {"ID": "expire", "Status": "Enabled", "Filter": {"Prefix": "tests/"}, "Expiration": {"Days": 30}},
        {"ID": "off", "Status": "Disabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 30}},
        {
            "ID": "tidy",
            "Status": "Enabled",
            "Filter": {"Prefix": ""},
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1},
            "NoncurrentVersionExpiration": {"NoncurrentDays": 7},
        },
    ]
    with closing(server.client()) as client:
        client.put_bucket_lifecycle_configuration(Bucket=server.bucket, LifecycleConfiguration={"Rules": rules})
    facts = examined(make_s3_store, server)
    assert facts.lifecycle is not None
    by_name = {rule.name: rule for rule in facts.lifecycle}
    assert set(by_name) == {"expire", "tidy"}
    assert (by_name["expire"].prefix, by_name["expire"].expires_days) == ("tests/", 30)
    assert (by_name["tidy"].aborts_days, by_name["tidy"].old_versions_days) == (1, 7)


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    volume = tmp_path / "storage"
    volume.mkdir()
    (volume / "file").write_bytes(b"x" * 50_000)
    return volume


def cli_on(make_cli: Callable[..., Cli], volume: Path, server: S3Server, **store: Any) -> Cli:
    options = server.options()
    offsite = {
        "type": "s3",
        "bucket": options.bucket,
        "prefix": options.prefix,
        "endpoint_url": options.endpoint_url,
        "access_key_id": options.access_key_id,
        "secret_access_key": options.secret_access_key,
        "max_attempts": 2,
        **store,
    }
    plan = {"volumes": ["storage"], "stores": ["offsite"], "schedule": "@daily", "timezone": "UTC", "keep": {"last": 1}}
    return make_cli(
        engine="mounted",
        stores={"offsite": offsite},
        volumes={"storage": {"path": str(volume)}},
        plans={"nightly": plan},
    )


def said(document: Any, level: str) -> str:
    return "\n".join(f"{one['subject']}: {one['text']}" for one in document["findings"] if one["level"] == level)


def test_the_way_of_a_locked_bucket(make_cli: Callable[..., Cli], volume: Path, seaweedfs_s3: S3Server) -> None:
    """Backups, a doctor that is content, a prune that leaves and says until when, and nothing that can be destroyed."""
    server = limited(seaweedfs_s3.locking())
    cli = cli_on(make_cli, volume, server, object_lock={"mode": "compliance", "duration": "30d"}, purge_versions=True)
    first = cli.json("backup")["snapshot"]["id"]
    (volume / "file").write_bytes(b"y" * 50_000)
    cli.json("backup")
    document = cli.json("doctor")
    assert document["ok"]
    assert said(document, "error") == ""
    fine = said(document, "ok")
    assert "object lock holds (tried): compliance, for 30d at least" in fine
    assert "cannot destroy what is stored until its locks end" in fine
    shown = cli.run("prune")
    (row,) = [line for line in shown.stdout.splitlines() if line.startswith(first[:8])]
    assert "LOCKED" in row
    assert "it can go from 20" in row
    assert "nothing to remove, 2 snapshots kept, 1 of them only until their locks end" in shown.stdout
    pruned = cli.json("prune")["stores"][0]
    assert pruned["removed"]["snapshots"] == []
    assert first in {snapshot["id"] for snapshot in pruned["snapshots"] if snapshot["locked_until"]}
    assert "can't be removed before 20" in cli.error("prune", first, "--yes", code=3)
    assert cli.json("verify", "--read-data")["problems"] == []


def test_a_lock_that_the_bucket_does_not_have(
    make_cli: Callable[..., Cli], volume: Path, seaweedfs_s3: S3Server
) -> None:
    cli = cli_on(make_cli, volume, seaweedfs_s3, object_lock={"mode": "compliance", "duration": "30d"})
    document = cli.json("doctor", code=1)
    assert not document["ok"]
    assert "the bucket keeps no versions, which a lock needs" in said(document, "error")
    assert f"was the bucket {seaweedfs_s3.bucket} made with object lock" in cli.error("backup", code=1)


def test_a_bucket_that_is_not_there_and_a_wrong_key(
    make_cli: Callable[..., Cli], volume: Path, seaweedfs_s3: S3Server
) -> None:
    cli = cli_on(make_cli, volume, seaweedfs_s3, bucket="not-there")
    shown = cli.run("doctor", code=1).stdout
    assert "✗ store offsite" in shown
    assert "there is no bucket not-there" in shown
    assert "→ create the bucket not-there" in shown
    cli = cli_on(make_cli, volume, seaweedfs_s3, secret_access_key="wrong-secret-0123456789")
    shown = cli.run("doctor", "-q", code=1).stdout
    assert "the secret access key does not belong to the access key id" in shown
    assert "wrong-secret" not in shown


def hide_everything(server: S3Server, cli: Cli) -> int:
    """What ransomware does with the daemon's credentials: delete all, for good where it can. How many were there."""
    prefix = json.loads(cli.run("config", "show", "--json").stdout)["stores"]["offsite"]["prefix"]
    with closing(server.client()) as client:
        pages = client.get_paginator("list_object_versions").paginate(Bucket=server.bucket, Prefix=f"{prefix}/")
        versions = [version for page in pages for version in page.get("Versions", ())]
        for version in versions:
            with contextlib.suppress(ClientError):
                client.delete_object(Bucket=server.bucket, Key=version["Key"], VersionId=version["VersionId"])
            client.delete_object(Bucket=server.bucket, Key=version["Key"])
            client.put_object(Bucket=server.bucket, Key=version["Key"], Body=b"pay")
            client.delete_object(Bucket=server.bucket, Key=version["Key"])
        assert "Contents" not in client.list_objects_v2(Bucket=server.bucket, Prefix=f"{prefix}/")
        return len(versions)


def bring_back(server: S3Server, prefix: str) -> None:
    """As docs/immutability.md says: remove what was put on top of what is locked."""
    with closing(server.client()) as client:
        listed = client.list_object_versions(Bucket=server.bucket, Prefix=f"{prefix}/")
        assert not listed["IsTruncated"]
        locked = set()
        for version in listed["Versions"]:
            found = client.head_object(Bucket=server.bucket, Key=version["Key"], VersionId=version["VersionId"])
            if found.get("ObjectLockMode"):
                locked.add(version["VersionId"])
        for entry in [*listed["Versions"], *listed["DeleteMarkers"]]:
            if entry["VersionId"] not in locked:
                client.delete_object(Bucket=server.bucket, Key=entry["Key"], VersionId=entry["VersionId"])


def test_an_attack_with_the_daemons_credentials(
    make_cli: Callable[..., Cli], volume: Path, seaweedfs_s3: S3Server
) -> None:
    server = limited(seaweedfs_s3.locking())
    cli = cli_on(make_cli, volume, server, object_lock={"mode": "compliance", "duration": "30d"})
    taken = cli.json("backup")["snapshot"]["id"]
    assert hide_everything(server, cli) > 4
    assert "✗ store offsite: store offsite held the repository" in cli.run("doctor", code=1).stdout
    prefix = json.loads(cli.run("config", "show", "--json").stdout)["stores"]["offsite"]["prefix"]
    bring_back(seaweedfs_s3.locking(), prefix)
    assert [snapshot["id"] for snapshot in cli.json("list")["snapshots"]] == [taken]
    assert cli.json("verify", "--read-data")["problems"] == []


def test_room_comes_back_when_locks_have_ended(
    make_cli: Callable[..., Cli], volume: Path, seaweedfs_s3: S3Server
) -> None:
    lock = {"mode": "compliance", "duration": "4s"}
    cli = cli_on(make_cli, volume, limited(seaweedfs_s3.locking()), object_lock=lock, purge_versions=True)
    cli.environment["BACKUPD_PRUNE__GRACE"] = "1s"
    cli.environment["BACKUPD_PLANS__NIGHTLY__FULL_EVERY"] = "always"
    cli.run("backup")
    (volume / "file").write_bytes(os.urandom(50_000))
    last = cli.json("backup")["snapshot"]["id"]
    time.sleep(6)
    first = cli.json("prune")["stores"][0]
    assert len(first["removed"]["snapshots"]) == 1
    time.sleep(2)
    second = cli.json("prune")["stores"][0]["old_versions"]
    assert first["old_versions"]["purged_bytes"] + second["purged_bytes"] >= first["removed"]["bytes"] > 0
    assert [snapshot["id"] for snapshot in cli.json("list")["snapshots"]] == [last]


def test_credentials_that_may_not_delete(
    make_cli: Callable[..., Cli], volume: Path, seaweedfs_s3: S3Server, denying: Callable[..., None]
) -> None:
    """By a policy of a real server: backups work, and prune says what it left."""
    server = replace(seaweedfs_s3, bucket=seaweedfs_s3.make_bucket("doctor-prune-denied"))
    denying(server, "s3:DeleteObject")
    cli = cli_on(make_cli, volume, limited(server))
    first = cli.json("backup")["snapshot"]["id"]
    (volume / "file").write_bytes(b"z" * 50_000)
    cli.run("backup")
    assert "prune can remove nothing here" in said(cli.json("doctor"), "note")
    document = cli.json("prune", code=3)["stores"][0]
    assert f"snapshots/{first}.json" in document["left"]
    assert document["removed"]["snapshots"] == []
    assert len(cli.json("list")["snapshots"]) == 2
