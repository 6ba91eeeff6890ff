"""`backupd prune` as its user has it, on a directory and on S3."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from backupd.backup import back_up
from backupd.lease import DURATION
from backupd.lease.document import Document, encode
from backupd.repository import Repository, layout
from backupd.repository.documents import encode as encode_manifest
from backupd.settings import load_settings
from backupd.stores.local import LocalStore
from backupd.wiring import SystemClock, make_runtime, make_stores
from tests.support import s3_proxy
from tests.support.cli import Cli
from tests.support.runtime import RecordingProgress
from tests.support.s3 import S3Server

KEEP = {"daily": 2}


def settings(volume: Path, **more: Any) -> dict[str, Any]:
    return {
        "engine": "mounted",
        "volumes": {"storage": {"path": str(volume)}},
        "plans": {"nightly": {"volumes": ["storage"], "stores": ["local"], "keep": KEEP}},
        **more,
    }


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    volume = tmp_path / "storage"
    volume.mkdir()
    return volume


def back_up_for_days(cli: Cli, volume: Path, days: int) -> list[str]:
    """Snapshots of something new each, taken in this process, which is quicker; the ids, oldest first."""
    settings = load_settings(cli.config, {})
    runtime, plan = make_runtime(settings, RecordingProgress()), settings.plan("nightly")
    stores = make_stores(settings, plan.stores)
    ids = []
    for _ in range(days):
        (volume / "file").write_bytes(os.urandom(80_000))
        result = back_up(plan, runtime, stores)
        assert result.complete
        ids.append(result.manifest.id)
    for store in stores:
        store.close()
    return ids


def date_back(store: LocalStore, ids: list[str]) -> None:
    """A day apart."""
    repository = Repository.open(store, threads=1)
    for age, id_ in enumerate(reversed(ids)):
        manifest = repository.load(id_)
        store.delete(layout.snapshot(id_))
        store.put(
            layout.snapshot(id_), encode_manifest(structs.replace(manifest, time=manifest.time - age * timedelta(1)))
        )


@pytest.fixture
def cli(make_cli: Callable[..., Cli], volume: Path) -> Cli:
    return make_cli(**settings(volume))


@pytest.fixture
def history(cli: Cli, volume: Path, tmp_path: Path) -> list[str]:
    ids = back_up_for_days(cli, volume, 4)
    date_back(LocalStore("local", tmp_path / "backups"), ids)
    shutil.rmtree(load_settings(cli.config, {}).state_dir / "trust")  # as a machine that never saw them otherwise
    return ids


def ids_of(cli: Cli, *arguments: str) -> set[str]:
    return {snapshot["id"] for snapshot in cli.json("list", *arguments)["snapshots"]}


def test_the_table_and_what_goes(cli: Cli, history: list[str]) -> None:
    shown = cli.run("prune", "--dry-run").stdout
    rows = {line.split()[0]: line for line in shown.splitlines() if line[:8] in {id_[:8] for id_ in history}}
    assert "REMOVE" in rows[history[0][:8]]
    assert "no rule wants it" in rows[history[1][:8]]
    assert "keep    daily 20" in rows[history[3][:8]]
    assert "dry run: nothing was changed" in shown
    assert ids_of(cli) == set(history)

    document = cli.json("prune", "--dry-run")["stores"][0]
    assert [snapshot["keep"] for snapshot in document["snapshots"]] == [True, True, False, False]
    assert document["bytes"] > 0

    done = cli.json("prune")["stores"][0]
    assert set(done["removed"]["snapshots"]) == set(history[:2])
    assert done["removed"]["bytes"] == document["bytes"]
    assert done["left"] == []
    assert ids_of(cli) == set(history[2:])
    assert cli.json("verify", "--read-data")["problems"] == []
    assert "1 object removed" in cli.run("prune").stdout  # what prune had noted of a check, and verify since
    assert "nothing to remove, 2 snapshots kept" in cli.run("prune").stdout


def test_only_one_plan(cli: Cli, history: list[str]) -> None:
    assert "there is no plan 'weekly'" in cli.error("prune", "--plan", "weekly", code=2)
    cli.run("prune", "--plan", "nightly")
    assert ids_of(cli) == set(history[2:])


def test_named_snapshots(cli: Cli, history: list[str]) -> None:
    assert "pass --yes" in cli.error("prune", history[1], code=2)
    assert "newest good one of volume storage" in cli.error("prune", history[3], "--yes", code=1)
    assert "never removes" in cli.error("prune", "latest", "--yes", code=2)
    assert "exclude each other" in cli.error("prune", history[1], "--plan", "nightly", code=2)
    assert "there is no snapshot 'ffff'" in cli.error("prune", "ffff", "--yes", code=10)
    assert ids_of(cli) == set(history)
    assert "REMOVE" in cli.run("prune", history[1][:10], "--dry-run").stdout
    cli.run("prune", history[1][:10], "--yes")
    assert ids_of(cli) == set(history) - {history[1]}


def test_damage_stops_it(cli: Cli, history: list[str], tmp_path: Path) -> None:
    index = tmp_path / "backups" / "archives" / "storage" / f"{history[3]}.index.zst"
    index.unlink()
    said = cli.error("prune", code=13)
    assert f"nothing is pruned, as snapshot {history[3][:8]} (storage), which is to stay, is damaged" in said
    assert f"`backupd prune {history[3][:8]}`" in said
    assert ids_of(cli) == set(history)
    document = cli.json("prune", code=13)["stores"][0]
    assert document["error"].endswith("is missing")
    cli.run("prune", history[3], "--yes")
    cli.run("prune")
    assert ids_of(cli) == set(history[1:3])


def test_locked(cli: Cli, history: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a process of another machine; when that has been silent for long enough, it goes on."""
    store = LocalStore("local", tmp_path / "backups")
    now = SystemClock().now()
    lease = Document(
        kind="shared", operation="backup of plan nightly", host="elsewhere", program="backupd 9", process=7,
        begun=now, until=now + DURATION, seconds=900,
    )  # fmt: skip
    store.put(layout.lease("00000000feedfeed", 0), encode(lease))
    cli.environment["BACKUPD_LOCK_WAIT"] = "1s"
    said = cli.error("prune", code=11)
    assert "store local is in use: backup of plan nightly by backupd 9 on elsewhere (process 7), since 20" in said
    assert "and at least until" in said
    cli.run("backup")

    store.delete(layout.lease("00000000feedfeed", 0))
    store.put(layout.lease("00000000feedfee0", 0), encode(structs.replace(lease, kind="exclusive", operation="prune")))
    assert "prune by backupd 9" in cli.error("backup", code=11)
    path = tmp_path / "backups" / layout.lease("00000000feedfee0", 0)
    old = (now - 3 * DURATION).timestamp()
    os.utime(path, (old, old))
    cli.run("backup")
    assert not path.exists()


def test_each_store_has_its_own_rules(make_cli: Callable[..., Cli], volume: Path, tmp_path: Path) -> None:
    cli = make_cli(
        **settings(
            volume,
            stores={name: {"type": "local", "path": str(tmp_path / name)} for name in ("near", "far", "unused")},
            plans={
                "nightly": {
                    "volumes": ["storage"],
                    "stores": ["near", "far"],
                    "keep": {"last": 1, "stores": {"far": {"last": 3}}},
                }
            },
        )
    )
    ids = back_up_for_days(cli, volume, 5)
    document = cli.json("prune")
    assert {store["store"]: len(store["removed"]["snapshots"]) for store in document["stores"]} == {"near": 4, "far": 2}
    assert ids_of(cli, "--store", "near") == {ids[4]}
    assert ids_of(cli, "--store", "far") == set(ids[2:])
    last = back_up_for_days(cli, volume, 1)
    assert ids_of(cli, "--store", "near") == {ids[4], *last}, "what was pruned is not copied back"
    cli.run("prune", "--store", "near")
    assert ids_of(cli, "--store", "near") == set(last)
    assert len(ids_of(cli, "--store", "far")) == 4


def test_a_store_that_fails_does_not_keep_the_others(
    make_cli: Callable[..., Cli], volume: Path, tmp_path: Path
) -> None:
    cli = make_cli(
        **settings(
            volume,
            stores={name: {"type": "local", "path": str(tmp_path / name)} for name in ("near", "far")},
            plans={"nightly": {"volumes": ["storage"], "stores": ["near", "far"], "keep": {"last": 1}}},
        )
    )
    ids = back_up_for_days(cli, volume, 2)
    (tmp_path / "near" / "snapshots" / f"{ids[0]}.json").write_text("not a manifest")
    document = cli.json("prune", code=13)["stores"]
    assert {store["store"] for store in document if store.get("error")} == {"near"}
    assert ids_of(cli, "--store", "far") == {ids[1]}


def test_recover_lets_go_of_a_killed_prune(cli: Cli, history: list[str], tmp_path: Path) -> None:
    store = LocalStore("local", tmp_path / "backups")
    now = SystemClock().now()
    lease = Document(
        kind="exclusive",
        operation="prune",
        host="here",
        program="backupd",
        process=1,
        begun=now,
        until=now,
        seconds=900,
    )
    store.put(layout.lease("00000000feedfeed", 0), encode(lease))
    (tmp_path / "state" / "leases").mkdir(exist_ok=True)
    (tmp_path / "state" / "leases" / "00000000feedfeed").touch()
    assert (
        "store local: ended the lease of a process that is no more: prune by backupd on here"
        in cli.run("recover").stdout
    )
    assert list(store.list("leases/")) == []
    assert len(history) == 4


@pytest.fixture
def denied(seaweedfs_s3: S3Server) -> Iterator[tuple[S3Server, s3_proxy.Proxy]]:
    with s3_proxy.running(seaweedfs_s3.endpoint_url) as proxy:
        yield seaweedfs_s3, proxy


def s3_cli(make_cli: Callable[..., Cli], volume: Path, server: S3Server, **store: Any) -> Cli:
    options = server.options()
    return make_cli(
        **settings(
            volume,
            stores={
                "offsite": {
                    "type": "s3",
                    "bucket": options.bucket,
                    "prefix": options.prefix,
                    "endpoint_url": options.endpoint_url,
                    "access_key_id": options.access_key_id,
                    "secret_access_key": options.secret_access_key,
                    **store,
                }
            },
            plans={"nightly": {"volumes": ["storage"], "stores": ["offsite"], "keep": {"last": 2}}},
        )
    )


@pytest.mark.s3
def test_on_s3(make_cli: Callable[..., Cli], volume: Path, seaweedfs_s3: S3Server) -> None:
    cli = s3_cli(make_cli, volume, seaweedfs_s3)
    ids = back_up_for_days(cli, volume, 4)
    assert set(cli.json("prune")["stores"][0]["removed"]["snapshots"]) == set(ids[:2])
    assert ids_of(cli) == set(ids[2:])
    assert cli.json("verify", "--read-data")["problems"] == []
    assert "1 object removed" in cli.run("prune").stdout  # what prune had noted of a check
    assert "nothing to remove" in cli.run("prune").stdout


@pytest.mark.s3
def test_in_a_bucket_with_versions(make_cli: Callable[..., Cli], volume: Path, seaweedfs_s3: S3Server) -> None:
    """What is deleted is hidden, and can be brought back by whoever runs the bucket."""
    bucket = seaweedfs_s3.make_bucket("pruned-versions")
    client = seaweedfs_s3.client()
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    cli = s3_cli(make_cli, volume, seaweedfs_s3, bucket=bucket, prefix="x")
    ids = back_up_for_days(cli, volume, 4)
    cli.run("prune")
    assert ids_of(cli) == set(ids[2:])
    assert cli.json("verify", "--read-data")["problems"] == []
    versions = client.list_object_versions(Bucket=bucket, Prefix=f"x/snapshots/{ids[0]}")
    assert len(versions["Versions"]) == 1
    assert len(versions["DeleteMarkers"]) == 1
    assert "1 object removed" in cli.run("prune").stdout  # what prune had noted of a check
    assert "nothing to remove" in cli.run("prune").stdout
    client.close()


@pytest.mark.s3
@pytest.mark.parametrize("part", ["/archives/", "/"])
def test_where_deletes_are_denied(
    make_cli: Callable[..., Cli], volume: Path, denied: tuple[S3Server, s3_proxy.Proxy], part: str
) -> None:
    server, proxy = denied

    def no_deletes(request: s3_proxy.Request) -> s3_proxy.Action | None:
        refused = request.method == "DELETE" and part in request.path and "uploadId" not in request.query
        return s3_proxy.Answer(403, "AccessDenied") if refused else None

    proxy.rules.append(no_deletes)
    cli = s3_cli(make_cli, volume, server, endpoint_url=proxy.endpoint_url)
    cli.environment["BACKUPD_LOCK_WAIT"] = "1s"
    ids = back_up_for_days(cli, volume, 4)
    said = cli.error("prune", code=3)
    assert "store offsite refuses to delete" in said
    document = json.loads(cli.run("prune", "--json", code=3 if part == "/" else 0).stdout)["stores"][0]
    if part == "/":
        assert len(document["left"]) == 2
        assert ids_of(cli) == set(ids)
    else:
        assert ids_of(cli) == set(ids[2:])
    assert cli.json("verify", "--read-data")["problems"] == []
    cli.run("backup")
    proxy.rules.clear()
    cli.run("prune")
    assert len(ids_of(cli)) == 2
