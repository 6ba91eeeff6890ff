"""What a helper may do, as the engine and the kernel see it while it runs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import docker
import pytest

from backupd.engine import DockerEngine
from backupd.errors import SourceError
from backupd.model import MIB, Volume, VolumeSpec

# Linux, include/uapi/linux/capability.h
BITS = {"CHOWN": 0, "DAC_OVERRIDE": 1, "DAC_READ_SEARCH": 2, "FOWNER": 3, "FSETID": 4, "MKNOD": 27, "SETFCAP": 31}
BITS |= {"SETGID": 6, "SETUID": 7}
COPYING = {"CHOWN", "DAC_READ_SEARCH", "FOWNER", "SETGID", "SETUID"}
READING = {"DAC_READ_SEARCH"}
WRITING = {"CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "MKNOD", "SETFCAP"}


@pytest.fixture(params=["docker-fifo-gnu", "docker-attach-gnu"])
def engine(request: pytest.FixtureRequest, docker_engines: Callable[[str], DockerEngine]) -> DockerEngine:
    return docker_engines(request.param)


@pytest.fixture
def volume(docker_engine: DockerEngine, make_volume: Callable[..., str]) -> Volume:
    return docker_engine.find(VolumeSpec("v", volume=make_volume()))


def test_backup(
    engine: DockerEngine, volume: Volume, docker_client: docker.DockerClient, volume_root: Callable[[str], Path]
) -> None:
    (volume_root(volume.source) / "big").write_bytes(bytes(16 * MIB))
    with engine.tar_out(volume) as output:
        output.readinto(memoryview(bytearray(MIB)))
        check(docker_client, READING, data_writable=False)


def test_restore(engine: DockerEngine, volume: Volume, docker_client: docker.DockerClient) -> None:
    with engine.tar_in(volume):
        check(docker_client, WRITING, data_writable=True)


def check(client: docker.DockerClient, capabilities: set[str], *, data_writable: bool) -> None:
    (helper,) = client.containers.list(filters={"label": ["backupd.job"]})
    config = helper.attrs["HostConfig"]
    assert config["NetworkMode"] == "none"
    assert config["ReadonlyRootfs"] is True
    assert config["Privileged"] is False
    assert config["CapDrop"] == ["ALL"]
    assert {name.removeprefix("CAP_") for name in config["CapAdd"]} == capabilities
    assert config["SecurityOpt"] == ["no-new-privileges"]
    assert config["Memory"] == config["MemorySwap"] == 1024 * MIB
    assert config["PidsLimit"] == 64
    assert config["LogConfig"]["Type"] == "none"
    assert {"backupd.job", "backupd.owner", "backupd.home"} <= helper.labels.keys()
    mounts = {mount["Destination"]: mount["RW"] for mount in helper.attrs["Mounts"]}
    assert mounts in ({"/data": data_writable}, {"/data": data_writable, "/pipes": False})
    status = helper.exec_run(["cat", "/proc/1/status"]).output
    assert isinstance(status, bytes)
    fields = dict(line.split(":\t", 1) for line in status.decode().splitlines() if ":\t" in line)
    expected = sum(1 << BITS[name] for name in capabilities)
    assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == expected
    assert fields["NoNewPrivs"] == "1"


def test_nothing_else_is_writable(docker_engine: DockerEngine, volume: Volume) -> None:
    docker_engine.run_script(volume, "touch x")
    for command in ("touch /etc/x", "touch /x", "touch /root/x"):
        with pytest.raises(SourceError, match="Read-only file system"):
            docker_engine.run_script(volume, command)


def test_no_network(docker_engine: DockerEngine, volume: Volume) -> None:
    devices = docker_engine.run_script(volume, "cat /proc/net/dev | tail -n +3 | cut -d: -f1").split()
    assert "eth0" not in devices


@pytest.mark.parametrize("missing", sorted(WRITING))
def test_every_capability_of_a_restore_is_needed(
    docker_engine: DockerEngine, volume: Volume, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    """Each of these does what a restore does, and fails or is undone without the capability."""
    needs = {
        "CHOWN": "touch f; chown 5:6 f",
        "DAC_OVERRIDE": "mkdir -m 0 d; chown 5:6 d; touch d/f",
        "FOWNER": "touch f; chown 5:6 f; chmod 600 f",
        "FSETID": "touch f; chown 0:6 f; chmod 2755 f; [ -g f ]",
        "MKNOD": "mknod n c 1 3",
        "SETFCAP": "touch f; setcap cap_net_bind_service=ep f",
    }
    docker_engine.run_script(volume, needs[missing])
    docker_engine.run_script(volume, "rm -rf d f n")
    monkeypatch.setattr("backupd.engine.docker.engine.WRITING", sorted(WRITING - {missing}))
    with pytest.raises(SourceError):
        docker_engine.run_script(volume, f"set -e; {needs[missing]}")


def test_program(docker_engine: DockerEngine, volume: Volume) -> None:
    with docker_engine.scratch() as scratch:
        status = docker_engine.run_python(["-c", "print(open('/proc/self/status').read())"], volume, scratch)
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == sum(1 << BITS[name] for name in COPYING)
    assert fields["NoNewPrivs"] == "1"


@pytest.mark.parametrize("missing", sorted(COPYING))
def test_every_capability_of_a_program_is_needed(
    docker_engine: DockerEngine,
    volume: Volume,
    volume_root: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    missing: str,
) -> None:
    private = volume_root(volume.source) / "private"
    private.write_text("x")
    private.chmod(0o600)
    os.chown(private, 5, 6)
    needs = {
        "CHOWN": "os.chown('/scratch', 5, 6)",
        "DAC_READ_SEARCH": "open('private').read()",
        "FOWNER": "os.utime('private', (1, 1))",
        "SETGID": "os.setgid(6)",
        "SETUID": "os.setuid(5)",
    }
    with docker_engine.scratch() as scratch:
        docker_engine.run_python(["-c", f"import os; {needs[missing]}"], volume, scratch)
        monkeypatch.setattr("backupd.engine.docker.engine.COPYING", sorted(COPYING - {missing}))
        with pytest.raises(SourceError, match=r"not permitted|denied"):
            docker_engine.run_python(["-c", f"import os; {needs[missing]}"], volume, scratch)
