"""A restore among real containers is killed ahead of each of its acts and at random moments, then recovered.

Afterwards all volumes are old or all are new, and the services that ran before run again.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from docker.errors import APIError

from backupd.backup import back_up
from backupd.journal import Journal
from backupd.model import Plan, VolumeSpec
from backupd.recover import recover
from backupd.runtime import Runtime
from backupd.stores.local import LocalStore
from tests.support.dockerd import Host
from tests.support.dying_restore import runtime_of
from tests.support.engines import helper_names

pytestmark = pytest.mark.docker

ROOT = Path(__file__).parents[2]
# It reads the data once, when it starts; with bad data it never becomes healthy.
SERVE = ["sh", "-c", "cat /srv/*/file >/tmp/seen; trap 'exit 0' TERM; sleep infinity & wait"]
CHECK = {"test": ["CMD-SHELL", "! grep -q bad /tmp/seen"], "interval": 200_000_000, "timeout": 10**10, "retries": 1}
SELDOM = {"test": ["CMD", "true"], "interval": 10**9, "timeout": 10**10, "retries": 9}


@dataclass
class Shop:
    """Two volumes; `db` uses both, `web` one and depends on it, `idle` uses one and is down, `other` is paused."""

    base: Path
    host: Host
    image: str
    client: Any
    volumes: dict[str, str]
    roots: dict[str, Path]
    containers: dict[str, Any]

    @cached_property
    def runtime(self) -> Runtime:
        return runtime_of(self.base, self.host.url, self.image)

    def hold(self, text: str) -> None:
        for root in self.roots.values():
            (root / "file").write_text(text)

    @property
    def held(self) -> list[str]:
        return [(root / "file").read_text() for root in self.roots.values()]

    def snapshot(self, text: str) -> None:
        self.hold(text)
        specs = tuple(VolumeSpec(name, volume=volume) for name, volume in self.volumes.items())
        back_up(Plan("p", specs, ("local",)), self.runtime, [LocalStore("local", self.base / "store")])

    def states(self) -> dict[str, str]:
        for container in self.containers.values():
            container.reload()
        return {name: container.status for name, container in self.containers.items()}

    def seen(self, name: str) -> str:
        """What the container found when it started."""
        return str(self.containers[name].exec_run(["cat", "/tmp/seen"]).output.decode())

    def restoring(self, kill_at: int = 0, within: float = 30) -> subprocess.Popen[str]:
        given = {
            "base": str(self.base),
            "host": self.host.url,
            "image": self.image,
            "volumes": self.volumes,
            "within": within,
            "kill_at": kill_at,
        }
        command = [sys.executable, "-m", "tests.support.dying_restore", json.dumps(given)]
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def points(self, within: float = 30) -> list[str]:
        """The acts of a restore that nobody kills."""
        said, errors = self.restoring(within=within).communicate()
        return said.split("\n")[1:-1] or pytest.fail(errors)

    def check_recovery(self, old: str, new: str) -> str:
        """Recover; which data there are now."""
        specs = [VolumeSpec(name, volume=volume) for name, volume in self.volumes.items()]
        said = recover(self.runtime, specs)  # as the command does, which also ends a helper that no act tells of
        held = self.held
        assert held in ([old] * 2, [new] * 2), said
        assert self.states() == {"db": "running", "web": "running", "idle": "exited", "other": "paused"}, said
        assert {self.seen("db"), self.seen("web")} == {held[0] * 2, held[0]}, "they run on what is there"
        assert all(not list(root.glob(".backupd-*")) for root in self.roots.values())
        # A helper that the dead process had asked for may appear only now.
        assert {item.subject for item in recover(self.runtime, specs)} <= {"leftover"}
        assert Journal(self.runtime.state).open_acts() == []
        assert helper_names(self.client) == []
        return held[0]


@pytest.fixture
def shop(
    tmp_path: Path,
    docker_host: Host,
    docker_client: Any,
    helper_image: str,
    make_volume: Callable[..., str],
    run_container: Callable[..., Any],
    volume_root: Callable[[str], Path],
) -> Shop:
    project = f"shop{uuid.uuid4().hex[:6]}"
    volumes = {name: make_volume(f"{project}_{name}") for name in ("one", "two")}
    shop = Shop(
        tmp_path,
        docker_host,
        helper_image,
        docker_client,
        volumes,
        {name: volume_root(volume) for name, volume in volumes.items()},
        {},
    )
    shop.hold("old")

    def start(name: str, *uses: str, depends_on: str = "", **rest: Any) -> None:
        labels = {"com.docker.compose.project": project, "com.docker.compose.service": name}
        shop.containers[name] = run_container(
            helper_image,
            SERVE,
            labels=labels | {"com.docker.compose.depends_on": depends_on},
            volumes=[f"{volumes[volume]}:/srv/{volume}" for volume in uses],
            init=True,
            **({"healthcheck": CHECK} | rest),
        )

    start("db", "one", "two", restart_policy={"Name": "always"})
    start("web", "one", depends_on="db:service_healthy:false")
    start("idle", "one")
    start("other", "two", healthcheck=SELDOM)
    shop.containers["idle"].stop()
    pause(shop.containers["other"])
    return shop


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("new", ["new", "bad"])
def test_killed_ahead_of_every_act(shop: Shop, new: str) -> None:
    """`bad` data make services unhealthy, so that the way back is killed as well."""
    within = 30.0 if new == "new" else 0.5
    shop.snapshot(new)
    shop.hold("old")
    restart(shop)
    points = shop.points(within)
    assert "Swap.finish" in points if new == "new" else points.count("Swap.undo") == 2
    assert points.count("DockerServices.stop") == (3 if new == "new" else 6)
    # The first half of the way with bad data is that with good ones.
    first = 1 if new == "new" else points.index("DockerServices.start") + 1
    shop.check_recovery("old", new)
    ends = {}
    for number in range(first, len(points) + 1):
        shop.hold("old")
        restart(shop)
        process = shop.restoring(number, within)
        _, errors = process.communicate()
        assert process.returncode == -signal.SIGKILL, errors
        ends[number] = shop.check_recovery("old", new)
        print(f"killed ahead of {points[number - 1]} ({number} of {len(points)}): {ends[number]}")
    decided = points.index("Swap.swap") + 1  # the first swap comes right after the decision
    if new == "new":
        assert ends == {number: "old" if number < decided else "new" for number in ends}
    else:  # forward until the way back is decided
        back = len(points) - points[::-1].index("Journal.decide")
        assert ends == {number: "bad" if number <= back else "old" for number in ends}


def restart(shop: Shop) -> None:
    """So that services have read what is there now."""
    for name in ("db", "web"):
        shop.containers[name].restart(timeout=1)
    shop.containers["other"].unpause()
    shop.containers["other"].restart(timeout=1)
    pause(shop.containers["other"])


def pause(container: Any) -> None:
    """It fails while a health check is being started."""
    for _ in range(20):
        try:
            container.pause()
            return
        except APIError:
            time.sleep(0.1)
    pytest.fail("cannot be paused")


@pytest.mark.timeout(600)
def test_killed_at_random_moments(shop: Shop) -> None:
    """SIGKILL takes Python alone; a helper in the middle of its renames runs on, until `recover` comes."""
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    dice = random.Random(seed)
    shop.snapshot("new")
    began = time.monotonic()
    shop.points()
    longest = time.monotonic() - began
    killed = 0
    for _ in range(8):
        shop.hold("old")
        restart(shop)
        process = shop.restoring()
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(dice.random() * longest * 0.8)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
        shop.check_recovery("old", "new")
    assert killed


@pytest.mark.timeout(600)
def test_somebody_starts_the_services_before_recovery(shop: Shop) -> None:
    """As a host does that boots again: they are stopped once more, since the exchange is not over."""
    shop.snapshot("new")
    shop.hold("old")
    restart(shop)
    second = [number for number, point in enumerate(shop.points(), 1) if point == "Swap.swap"][1]
    shop.hold("old")
    restart(shop)
    shop.restoring(second).communicate()
    for name in ("db", "web", "other"):
        shop.containers[name].start()
    assert shop.check_recovery("old", "new") == "new"
