"""A drill that is killed at any moment leaves nothing that `recover` does not find."""

from __future__ import annotations

import random
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docker
import pytest
import yaml

from tests.support.cli import Cli
from tests.support.dockerd import Host

pytestmark = pytest.mark.docker

FOREVER = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"]
LABELS = ("backupd.drill", "backupd.job")


def put_up(client: docker.DockerClient) -> list[str]:
    found = []
    for label in LABELS:
        filters = {"label": [label]}
        found += [box["Names"][0] for box in client.api.containers(all=True, filters=filters)]
        found += [net["Name"] for net in client.api.networks(filters=filters)]
        found += [volume["Name"] for volume in client.api.volumes(filters=filters)["Volumes"] or []]
    return found


@pytest.fixture
def cli(
    tmp_path: Path,
    docker_host: Host,
    helper_image: str,
    make_volume: Callable[..., str],
    run_container: Callable[..., Any],
    volume_root: Callable[[str], Path],
) -> Cli:
    volumes = {}
    project = f"kill{uuid.uuid4().hex[:6]}"
    for name in ("one", "two"):
        labels = {"com.docker.compose.project": project, "com.docker.compose.volume": name}
        volume = make_volume(f"{project}_{name}", labels=labels)
        (volume_root(volume) / "file").write_bytes(random.randbytes(4 << 20))
        run_container(helper_image, FOREVER, volumes=[f"{volume}:/srv"], labels={"com.docker.compose.service": name})
        volumes[name] = {"volume": name, "drill": {"steady_for": "1s"}}
    config = {
        "project": project,
        "state_dir": str(tmp_path / "state"),
        "docker": {"host": docker_host.url, "helper_image": helper_image},
        "stores": {"local": {"type": "local", "path": str(tmp_path / "backups")}},
        "volumes": volumes,
    }
    (tmp_path / "backupd.yaml").write_text(yaml.safe_dump(config))
    return Cli(tmp_path / "backupd.yaml")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_random_moments(cli: Cli, docker_client: docker.DockerClient, tmp_path: Path) -> None:
    cli.run("backup")
    began = time.monotonic()
    assert cli.json("drill")["drill"]["outcome"] == "proven"
    whole = time.monotonic() - began
    caught = 0
    for part in sorted(random.uniform(0.15, 0.95) for _ in range(6)):
        process = subprocess.Popen(
            cli.command("drill"), env=cli.env(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(whole * part)
        process.kill()
        process.wait()
        caught += bool(put_up(docker_client))
        cli.run("recover")
        deadline = time.monotonic() + 10  # what the engine was still at when the process died
        while put_up(docker_client) and time.monotonic() < deadline:
            cli.run("recover")
        assert put_up(docker_client) == []
        assert not list((tmp_path / "state" / "drills").glob("*"))
    assert caught, "no kill came at a moment at which there was anything to be left behind"


def test_terminated_and_alive(cli: Cli, docker_client: docker.DockerClient) -> None:
    """What a living drill has put up is left to it; SIGTERM removes all of it at once."""
    cli.run("backup")
    process = subprocess.Popen(cli.command("drill"), env=cli.env(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while process.poll() is None and not any("-one-" in name for name in put_up(docker_client)):
        time.sleep(0.05)
    assert process.poll() is None
    cli.run("recover")
    assert process.poll() is None
    assert put_up(docker_client)
    process.terminate()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said.decode()
    assert put_up(docker_client) == []
    assert "nothing was left" in cli.run("recover").stdout
