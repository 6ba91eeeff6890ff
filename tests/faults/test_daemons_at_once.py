"""Two daemons and three command lines on one repository at once, in a local store and in S3: processes of their own."""

from __future__ import annotations

import random
import subprocess
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from backupd.model import VolumeSpec
from backupd.ports import Store
from backupd.repository import layout
from backupd.signingkey import OwnKey
from backupd.stores import LocalStore
from backupd.stores.s3 import S3Store
from tests.support.cli import Cli
from tests.support.daemon import Running, daemon, known_since
from tests.support.pruning import check_all_that_is_listed, unreferenced
from tests.support.runtime import Place
from tests.support.s3 import S3Server

pytestmark = [pytest.mark.s3, pytest.mark.slow]

LONG_AGO = "2025-01-01T00:00:00Z"
SELDOM = "0 0 1 1 *"
LOCKED, PARTLY = 11, 3
PLANS = {"north": ("bread", "salt"), "south": ("wine", "oil")}
"""Of each host, a volume each."""


def content(name: str) -> bytes:
    """What a file of that name holds, in whatever volume and snapshot."""
    return random.Random(name).randbytes(40_000)


@dataclass
class Scene:
    """Two hosts with a daemon each, a third that only reads, and what they share. `said` is what commands said."""

    base: Path
    stores: dict[str, dict[str, Any]]
    signers: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.signers = [f"ed25519:{OwnKey(self.state(host))().public}" for host in ("north", "south", "reader")]
        for volume in (volume for plans in PLANS.values() for volume in plans):
            (self.base / "volumes" / volume).mkdir(parents=True)
            self.add(volume, "first")

    def state(self, host: str) -> Path:
        path = self.base / f"state-{host}"
        path.mkdir(mode=0o700, exist_ok=True)
        return path

    def add(self, volume: str, name: str) -> None:
        (self.base / "volumes" / volume / name).write_bytes(content(name))

    def cli(self, host: str) -> Cli:
        """A command line on a host: it shares the configuration and the state directory of the daemon there."""
        volumes = PLANS.get(host, ("none",))
        plan = {
            "schedule": SELDOM, "stores": list(self.stores), "keep": {"last": 2}, "full_every": "3s",
            "verify": {"schedule": SELDOM, "read_data": 100},
        }  # fmt: skip
        by_hand = {"volumes": list(volumes), "stores": list(self.stores), "keep": {"last": 2}}
        config = self.base / f"{host}.yaml"
        settings: dict[str, Any] = {
            "engine": "mounted", "threads": 1, "state_dir": str(self.state(host)), "stores": self.stores,
            "volumes": {volume: {"path": str(self.base / "volumes" / volume)} for volume in volumes},
            "plans": {volume: {**plan, "volumes": [volume]} for volume in volumes},
            "prune": {"grace": "1s"}, "lock_wait": "10m", "trust": {"signers": self.signers},
            "web": {"enabled": False},
        }  # fmt: skip
        settings["plans"][f"{host}-by-hand"] = by_hand
        if host == "south":  # else what is pruned by hand has not been missed
            settings["prune"]["schedule"] = SELDOM
        config.write_text(yaml.safe_dump(settings))
        return Cli(config, {"BACKUPD_LOG__FORMAT": "json"})


def work(host: str) -> list[str]:
    """What a daemon of that host has missed, and catches up with as soon as it has started."""
    kept = [f"{kind} of {volume}" for kind in ("backup", "verify") for volume in PLANS[host]]
    return [*kept, "prune"] if host == "south" else kept


@pytest.fixture
def scene(tmp_path: Path, seaweedfs_s3: S3Server) -> Scene:
    options = seaweedfs_s3.options()
    offsite = {
        "type": "s3", "bucket": options.bucket, "prefix": options.prefix, "endpoint_url": options.endpoint_url,
        "access_key_id": options.access_key_id, "secret_access_key": options.secret_access_key,
    }  # fmt: skip
    return Scene(tmp_path, {"here": {"type": "local", "path": str(tmp_path / "here")}, "offsite": offsite})


@pytest.fixture
def stores(scene: Scene, seaweedfs_s3: S3Server, make_s3_store: Callable[..., S3Store]) -> Sequence[Store]:
    """The same, to look at what is in them."""
    offsite = make_s3_store(seaweedfs_s3, prefix=scene.stores["offsite"]["prefix"])
    return LocalStore("here", scene.base / "here"), offsite


def tried(cli: Cli, *arguments: str) -> bool:
    """Whether a command did it; it may find the repository or the volume in use, and nothing else."""
    done = subprocess.run(cli.command(*arguments), env=cli.env(), capture_output=True, text=True, check=False)
    in_use = done.returncode == LOCKED or (done.returncode == PARTLY and "is being worked on by another" in done.stderr)
    assert in_use or done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return not in_use


def back_up_often(scene: Scene) -> int:
    cli = scene.cli("south")
    done = 0
    for turn in range(4):
        scene.add("wine", f"turn {turn}")
        done += tried(cli, "backup", "south-by-hand")
    return done


def prune_often(scene: Scene) -> int:
    cli = scene.cli("north")
    return sum(tried(cli, "prune") for _ in range(3))


def read_often(scene: Scene) -> int:
    """Everything is verified, and what is listed restored: unless it was pruned in between, and so is gone."""
    cli = scene.cli("reader")
    done = 0
    for turn in range(2):
        cli.run("verify", "--read-data")
        for snapshot in cli.json("list")["snapshots"][:2]:
            target = scene.base / f"out-{turn}-{snapshot['id']}"
            volume = snapshot["archives"][0]["volume"]
            command = cli.command("restore", snapshot["id"], volume, "--to-dir", str(target), "--yes")
            result = subprocess.run(command, env=cli.env(), capture_output=True, text=True, check=False)
            listed = {one["id"] for one in cli.json("list")["snapshots"]}
            assert result.returncode == 0 or snapshot["id"] not in listed, result.stderr
            done += result.returncode == 0
    return done


def until_all_is_caught_up(running: Running, host: str) -> None:
    for what in work(host):
        running.until(partial(running.says, f"{what} is done"), what)


def everything_restores(scene: Scene, store: Store) -> int:
    """Each volume into a directory of its own, by what is in this store alone; how many snapshots there are."""
    place = Place(scene.base, stores=[store])
    manifests = place.repository().snapshots()[0]
    for manifest in manifests:
        for volume in manifest.volumes:
            target = scene.base / "restored" / store.name / manifest.id / volume
            place.restore(manifest, into=VolumeSpec("--to-dir", path=str(target)), volumes=(volume,))
            names = {path.name for path in target.iterdir()}
            assert "first" in names
            assert all((target / name).read_bytes() == content(name) for name in names)
    return len(manifests)


def test_two_daemons_and_three_command_lines(scene: Scene, stores: Sequence[Store]) -> None:
    for host, times in (("north", 3), ("south", 1)):
        for _ in range(times):
            scene.cli(host).run("backup", f"{host}-by-hand")
        known_since(scene.state(host), LONG_AGO, *work(host))
    with ExitStack() as stack:
        daemons = {host: stack.enter_context(daemon(scene.cli(host))) for host in PLANS}
        with ThreadPoolExecutor(3) as pool:
            done = [pool.submit(work, scene) for work in (back_up_often, prune_often, read_often)]
            for host, running in daemons.items():
                until_all_is_caught_up(running, host)
        assert [future.result() > 0 for future in done] == [True, True, True]
        for host, running in daemons.items():
            assert scene.cli(host).json("healthcheck") == {"healthy": True, "problem": None}
            assert running.stop() == 0

    for host in PLANS:
        cli = scene.cli(host)
        assert cli.json("recover") == {"recovered": []}
        by_daemon = [run for run in cli.json("history")["runs"] if run["trigger"] == "catch-up"]
        assert sorted((run["kind"], run["outcome"]) for run in by_daemon) == sorted(
            (what.split()[0], "done") for what in work(host)
        )
        cli.run("prune")
        left = {path.parent.name for path in scene.state(host).glob("*/*") if path.parent.name in {"leases", "journal"}}
        assert left == set()
    for store in stores:
        assert len(check_all_that_is_listed(store)) == everything_restores(scene, store)
        assert unreferenced(store) == []
        assert [info.key for info in store.list(layout.LEASES)] == []
        manifests = Place(scene.base, stores=[store]).repository().snapshots()[0]
        counts = Counter(manifest.plan for manifest in manifests)
        assert {counts.pop(f"{host}-by-hand") for host in PLANS} <= {2, 3}, "the third is the newest of some volume"
        assert counts == {volume: 1 for volumes in PLANS.values() for volume in volumes}
    uploads = stores[1].remove_stale_uploads(None, Place(scene.base).clock.now())
    assert list(uploads) == []
