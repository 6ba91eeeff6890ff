"""Backup, restore, prune and drill of a stack, killed again and again: at every kind of act, and at any moment.

After each kill `backupd recover` runs, as the daemon does at its start. Then all containers run, the volumes are as
before or as the restored snapshot has them, both alike, every listed snapshot can be read whole, and nothing is left
over, neither here nor in the engine nor in the stores. BACKUPD_KILLS says how many kills, BACKUPD_LANES in how many
stacks side by side (`make torture`: 240 in 3), and what happens follows from BACKUPD_SEED.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from tests.support.dockerd import Host
from tests.support.s3 import S3Server
from tests.support.torture import Torture, torture_chamber

pytestmark = [pytest.mark.docker, pytest.mark.s3, pytest.mark.slow, pytest.mark.timeout(4 * 3600)]

KILLS = int(os.environ.get("BACKUPD_KILLS", "6"))
LANES = int(os.environ.get("BACKUPD_LANES", "1"))
SEED = int(os.environ.get("BACKUPD_SEED", "0")) or random.SystemRandom().randrange(1, 1_000_000)
OPERATIONS = {"backup": ["backup"], "restore": ["restore", "--yes"], "prune": ["prune"], "drill": ["drill"]}
WEIGHTS = (4, 4, 3, 1)


@pytest.fixture
def torture(
    tmp_path: Path,
    docker_host: Host,
    docker_client: docker.DockerClient,
    run_container: Callable[..., Any],
    make_volume: Callable[..., str],
    volume_root: Callable[[str], Path],
    helper_image: str,
    seaweedfs_s3: S3Server,
) -> Iterator[Torture]:
    makers = (docker_client, run_container, make_volume, volume_root, helper_image)
    with torture_chamber(tmp_path, docker_host.url, makers, seaweedfs_s3) as made:
        yield made


class Killer:
    """Chooses an operation and how it dies. Acts that are rare are as likely as those that are frequent."""

    def __init__(self, torture: Torture, dice: random.Random) -> None:
        self.torture = torture
        self.dice = dice
        self.acts: dict[str, list[str]] = {}
        self.killed_at: Counter[str] = Counter()

    def arguments(self, name: str) -> list[str]:
        arguments = list(OPERATIONS[name])
        if name == "restore":
            arguments.insert(1, self.dice.choice(self.torture.listed()))
        return arguments

    def learn(self, name: str) -> None:
        """The acts of an operation that nobody kills."""
        done = self._dying(0, "before", self.arguments(name))
        assert done.returncode == 0, done.stderr
        self.acts[name] = done.stderr.splitlines()[-1].split()

    def kill(self, name: str, arguments: list[str]) -> bool:
        """Run it and kill it; whether the kill came before its end."""
        if self.dice.random() < 0.7:
            act = self.dice.choice(sorted(set(self.acts[name])))
            number = self.dice.choice([n for n, other in enumerate(self.acts[name], 1) if other == act])
            when = self.dice.choice(["before", "after"])
            done = self._dying(number, when, arguments)
            assert done.returncode in (0, -signal.SIGKILL), done.stderr
            if done.returncode:
                self.killed_at[f"{name}: {done.stderr.splitlines()[-1]}"] += 1
            return done.returncode != 0
        process = self.torture.zygote.start(arguments)
        time.sleep(self.dice.uniform(0.05, 4))
        process.kill()
        done = process.wait()
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        if done.returncode:
            self.killed_at[f"{name}: at any moment"] += 1
        return done.returncode != 0

    def _dying(self, number: int, when: str, arguments: list[str]) -> subprocess.CompletedProcess[str]:
        return self.torture.zygote.run(*arguments, dying=(number, when, "all"))


@pytest.mark.parametrize("lane", range(LANES))
def test_killed_again_and_again(torture: Torture, lane: int, record_property: Callable[[str, object], None]) -> None:
    seed, wanted = SEED + lane, -(-KILLS // LANES)
    say(f"BACKUPD_KILLS={KILLS} BACKUPD_LANES={LANES} BACKUPD_SEED={SEED}, lane {lane}")
    dice = random.Random(seed)
    killer = Killer(torture, dice)
    torture.write(dice)
    for name in OPERATIONS:
        killer.learn(name)
        torture.learn(torture.text())
    kills: Counter[str] = Counter()
    rounds = 0
    while kills.total() < wanted:
        rounds += 1
        assert rounds < 3 * wanted + 20, "most kills come too late"
        if dice.random() < 0.4:
            torture.write(dice)
        (name,) = dice.choices(list(OPERATIONS), WEIGHTS)
        arguments = killer.arguments(name)
        before = torture.text()
        allowed = {before, torture.held[arguments[1]]} if name == "restore" else {before}
        kills[name] += killer.kill(name, arguments)
        torture.learn(before)  # taken by this backup, or by this restore of what there was before
        torture.check(allowed)
        if rounds % 10 == 0:
            torture.check_restores(dice, 1)
            say(f"lane {lane}: {kills.total()} kills in {rounds} rounds")
    torture.check_restores(dice, 2 + wanted // 10)
    for store in torture.stores:
        torture.run("verify", "--read-data", "--store", store.name)
    torture.run("backup")
    record_property("seed", SEED)
    for act, count in sorted(killer.killed_at.items()):
        say(f"lane {lane}: {count:4} × {act}")


def say(text: str) -> None:
    """Into a file if one is named, since tests that run side by side print nothing."""
    print(text)
    if path := os.environ.get("BACKUPD_TORTURE_LOG"):
        with Path(path).open("a") as file:
            file.write(f"{text}\n")
