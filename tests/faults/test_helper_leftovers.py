"""What a killed backupd leaves behind is removed by the next one, and nothing that a living one uses."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import docker
import pytest

from backupd.engine import DockerEngine
from backupd.model import MIB, Volume, VolumeSpec
from tests.support.dockerd import Host
from tests.support.engines import helper_names

JOB = """
import sys, time
from pathlib import Path
from backupd.engine import DockerEngine, DockerOptions
from backupd.model import VolumeSpec
host, image, pipes, volume, transport = sys.argv[1:]
options = DockerOptions(Path(pipes), host=host, helper_image=image, transport=transport)
engine = DockerEngine(options)
with engine.tar_in(engine.find(VolumeSpec("v", volume=volume))) as target:
    print("running", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def volume(docker_engine: DockerEngine, make_volume: Callable[..., str]) -> Volume:
    return docker_engine.find(VolumeSpec("v", volume=make_volume()))


@pytest.mark.parametrize("transport", ["fifo", "attach"])
def test_killed_process(
    docker_host: Host,
    docker_client: docker.DockerClient,
    make_docker_engine: Callable[..., DockerEngine],
    helper_image: str,
    volume: Volume,
    tmp_path: Path,
    transport: str,
) -> None:
    pipes = tmp_path / "pipes"
    arguments = [docker_host.url, helper_image, str(pipes), volume.source, transport]
    process = subprocess.Popen([sys.executable, "-c", JOB, *arguments], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == "running\n"
        engine = make_docker_engine(pipe_directory=pipes)
        assert engine.remove_leftovers() == [], "it is alive"
        assert len(helper_names(docker_client)) == 1
        other = make_docker_engine(pipe_directory=tmp_path / "elsewhere")
        assert other.remove_leftovers() == []
        process.kill()
        process.wait()
    removed = engine.remove_leftovers()
    assert any(line.startswith("helper container backupd-") for line in removed) or helper_names(docker_client) == []
    assert helper_names(docker_client) == []
    assert sorted(path.name for path in pipes.iterdir() if path.suffix != ".lock") == ["home"]
    assert len(list(pipes.glob("*.lock"))) == 1
    assert engine.remove_leftovers() == []


def test_helper_of_a_dead_reader_ends_by_itself(
    docker_engine: DockerEngine,
    docker_client: docker.DockerClient,
    volume: Volume,
    volume_root: Callable[[str], Path],
) -> None:
    """With the reader's ends of the pipe closed, as by its death, tar ends at its next write."""
    (volume_root(volume.source) / "big").write_bytes(bytes(16 * MIB))
    with docker_engine.tar_out(volume) as output:
        output.readinto(memoryview(bytearray(MIB)))
        (helper,) = docker_client.containers.list(filters={"label": ["backupd.job"]})
        output._reader_end.close()  # type: ignore[union-attr]
        deadline = time.monotonic() + 10
        while helper.status == "running" and time.monotonic() < deadline:
            time.sleep(0.05)
            helper.reload()
        assert helper.status == "exited"
        assert helper.attrs["State"]["ExitCode"] != 0
