"""Backup, restore and prune of a stack, killed again and again: at every kind of act, and at any moment.

After each kill `backupd recover` runs, as the daemon does at its start. Then all containers run, the volumes are as
before or as the restored snapshot has them, both alike, every listed snapshot restores, and nothing is left over.
BACKUPD_KILLS says how many kills (`make torture`: 240), and what happens follows from BACKUPD_SEED.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
import pytest
import yaml

from backupd.journal import Journal
from tests.support.cli import ROOT, Cli
from tests.support.dockerd import Host
from tests.support.engines import helper_names
from tests.support.stacks import Stack

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(3600)]

KILLS = int(os.environ.get("BACKUPD_KILLS", "12"))
SEED = int(os.environ.get("BACKUPD_SEED", "0")) or random.SystemRandom().randrange(1, 1_000_000)
OPERATIONS = {"backup": ["backup"], "restore": ["restore", "--yes"], "prune": ["prune"]}


@dataclass
class Torture:
    """A database that uses both volumes, an application that depends on it, and what each snapshot holds."""

    cli: Cli
    client: docker.DockerClient
    roots: dict[str, Path]
    containers: list[Any]
    state: Path
    random: random.Random
    scratch: Path
    held: dict[str, str] = field(default_factory=dict)
    number: int = 0

    def write(self) -> None:
        """Other data, the same number in both volumes."""
        self.number += 1
        for root in self.roots.values():
            for path in root.iterdir():
                path.unlink()
            (root / "number").write_text(str(self.number))
            for index in range(20):
                (root / f"file-{self.number % 3}-{index}").write_text(f"{self.number} {index} " * 50)

    def text(self) -> str:
        """What is in the volumes, which must be the same in both."""
        found = [str(sorted((path.name, path.read_text()) for path in root.iterdir())) for root in self.roots.values()]
        assert len(set(found)) == 1, "one volume is old, the other one new"
        return found[0]

    def listed(self) -> list[str]:
        return [snapshot["id"] for snapshot in self.cli.json("list")["snapshots"]]

    def learn(self) -> None:
        """What a snapshot taken now holds. A safety snapshot of a restore holds what was there before."""
        for snapshot in self.listed():
            self.held.setdefault(snapshot, self.text())

    def operation(self) -> tuple[str, list[str]]:
        name = self.random.choice(list(OPERATIONS))
        arguments = list(OPERATIONS[name])
        if name == "restore":
            arguments.insert(1, self.random.choice(self.listed()))
        return name, arguments

    def killed(self, arguments: list[str]) -> bool:
        """Run it and kill it; whether the kill came before its end."""
        if self.random.random() < 0.6:
            number, when = self.random.randrange(1, 45), self.random.choice(["before", "after"])
            command = [sys.executable, "-m", "tests.support.dying", str(number), when, "all", *arguments]
            done = subprocess.run(command, cwd=ROOT, env=self.cli.env(), capture_output=True, text=True, check=False)
            assert done.returncode in (0, -signal.SIGKILL), done.stderr
            return done.returncode != 0
        process = subprocess.Popen(
            self.cli.command(*arguments), env=self.cli.env(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        time.sleep(self.random.uniform(0.3, 3.5))
        process.kill()
        _, errors = process.communicate()
        assert process.returncode in (0, -signal.SIGKILL), errors
        return process.returncode != 0

    def check(self, allowed: set[str]) -> None:
        self.cli.run("recover")
        for container in self.containers:
            container.reload()
            assert container.status == "running", container.name
        assert self.text() in allowed, "neither old nor new"
        assert Journal(self.state).open_acts() == []
        assert helper_names(self.client) == []
        self.cli.run("verify", "--read-data")
        store = self.scratch.parent / "backups"
        left = [path for name in ("leases", ".unfinished") for path in (store / name).glob("*")]
        assert left == [], "of a dead process"

    def check_restores(self) -> None:
        """Every listed snapshot restores to what it was taken of."""
        for snapshot in self.listed():
            for name in self.roots:
                out = self.scratch / f"{snapshot}-{name}"
                self.cli.run("restore", snapshot, name, "--to-dir", str(out), "--yes")
                found = str(sorted((path.name, path.read_text()) for path in out.iterdir()))
                assert found == self.held[snapshot], snapshot
                shutil.rmtree(out)


@pytest.fixture
def torture(
    tmp_path: Path,
    docker_host: Host,
    docker_client: docker.DockerClient,
    run_container: Callable[..., Any],
    make_volume: Callable[..., str],
    volume_root: Callable[[str], Path],
    helper_image: str,
) -> Torture:
    stack = Stack(docker_client, run_container, make_volume, volume_root, helper_image)
    volumes = {name: stack.volume(name) for name in ("one", "two")}
    containers = [
        stack.container("db", volumes=[f"{volumes['one']}:/one", f"{volumes['two']}:/two"]),
        stack.container("app", volumes=[f"{volumes['one']}:/one"], depends_on=["db"]),
    ]
    config = {
        "project": stack.project,
        "state_dir": str(tmp_path / "state"),
        "docker": {"host": docker_host.url, "helper_image": helper_image},
        "stores": {"local": {"type": "local", "path": str(tmp_path / "backups")}},
        "volumes": {
            "one": {"volume": "one", "consistency": "stop"},
            "two": {"volume": "two", "consistency": "pause"},
        },
        "prune": {"grace": "1s"},
        "plans": {"p": {"volumes": ["one", "two"], "stores": ["local"], "together": True, "keep": {"last": 3}}},
    }
    path = tmp_path / "backupd.yaml"
    path.write_text(yaml.safe_dump(config))
    roots = {name: volume_root(volume) for name, volume in volumes.items()}
    (tmp_path / "scratch").mkdir()
    return Torture(
        Cli(path), docker_client, roots, containers, tmp_path / "state", random.Random(SEED), tmp_path / "scratch"
    )


def test_killed_again_and_again(torture: Torture, record_property: Callable[[str, object], None]) -> None:
    print(f"BACKUPD_KILLS={KILLS} BACKUPD_SEED={SEED}")
    record_property("seed", SEED)
    torture.write()
    torture.cli.run("backup")
    torture.learn()
    kills: Counter[str] = Counter()
    rounds = 0
    while kills.total() < KILLS:
        rounds += 1
        assert rounds < 3 * KILLS + 20, "most kills come too late"
        if torture.random.random() < 0.4:
            torture.write()
        name, arguments = torture.operation()
        before = torture.text()
        allowed = {before, torture.held[arguments[1]]} if name == "restore" else {before}
        kills[name] += torture.killed(arguments)
        after_kill = {*torture.listed()} - {*torture.held}
        for snapshot in after_kill:  # taken by this backup, or by this restore of what there was before
            torture.held[snapshot] = before
        torture.check(allowed)
        assert {*torture.listed()} <= {*torture.held}
        if rounds % 10 == 0:
            torture.check_restores()
    torture.check_restores()
    record_property("kills", dict(kills))
    torture.cli.run("backup")
