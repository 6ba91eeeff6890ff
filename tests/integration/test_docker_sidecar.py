"""backupd in a container of its own: it finds itself, and pipes through a directory that its helpers share."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.dockerd import Host

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAM = """
import sys
from pathlib import Path
from backupd.engine import DockerEngine, DockerOptions
from backupd.model import VolumeSpec
pipes, volume = sys.argv[1:]
engine = DockerEngine(DockerOptions(Path(pipes), host="unix:///docker.sock"))
buffer = memoryview(bytearray(1 << 20))
size = 0
found = engine.find(VolumeSpec("v", volume=volume))
with engine.tar_out(found) as output:
    while count := output.readinto(buffer):
        size += count
    output.finish()
kind = type(output).__name__
with engine.tar_in(found, "copy") as target:
    target.write(bytes(10240))
    target.finish()
print(kind, type(target).__name__, size, engine.tool().flavour, len(engine.consumers(found)))
engine.close()
"""


@pytest.mark.parametrize(
    ("pipes", "expected"),
    [
        ("/state/run", "PipeOutput PipeInput"),
        ("/bound/run", "PipeOutput PipeInput"),
        ("/run/own", "AttachOutput AttachInput"),
    ],
)
def test_sidecar(
    docker_host: Host,
    run_container: Callable[..., Any],
    make_volume: Callable[..., str],
    volume_root: Callable[[str], Path],
    helper_image: str,
    tmp_path: Path,
    pipes: str,
    expected: str,
) -> None:
    if not docker_host.url.startswith("unix://") or not Path("/lib").is_symlink():
        pytest.fail("this test lends the container this machine's Python: a local engine and a merged /usr are needed")
    volume = make_volume()
    (volume_root(volume) / "f").write_bytes(bytes(100_000))
    mounts = {path: {"bind": path, "mode": "ro"} for path in {"/usr", sys.prefix, sys.base_prefix, str(REPOSITORY)}}
    mounts[docker_host.url.removeprefix("unix://")] = {"bind": "/docker.sock", "mode": "rw"}
    mounts[make_volume()] = {"bind": "/state", "mode": "rw"}
    mounts[str(tmp_path)] = {"bind": "/bound", "mode": "rw"}
    mounts[volume] = {"bind": "/volume", "mode": "rw"}  # backupd's own container is no consumer
    container = run_container(
        helper_image,
        [sys.executable, "-c", PROGRAM, pipes, volume],
        volumes=mounts,
        working_dir=str(REPOSITORY),
        environment={"PYTHONDONTWRITEBYTECODE": "1"},
        network_mode="none",
        tmpfs={"/run": ""},
    )
    assert container.wait(timeout=60)["StatusCode"] == 0, container.logs().decode()
    size = 512 * 2 + 100_000 // 512 * 512 + 512
    kind, kind_in, got, flavour, consumers = container.logs().decode().split()
    assert (f"{kind} {kind_in}", flavour, consumers) == (expected, "gnu", "0")
    assert int(got) >= size
