"""The containers of a Docker host: found, held still, asked, and copied from."""

from __future__ import annotations

import os
import tarfile
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from backupd.engine import DockerEngine
from backupd.errors import SourceError
from backupd.model import VolumeSpec
from backupd.services import Service, TarStream

pytestmark = pytest.mark.docker

FOREVER = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"]


@pytest.fixture
def service(
    docker_engine: DockerEngine, run_container: Callable[..., Any], helper_image: str, make_volume: Callable[..., str]
) -> Service:
    volume = make_volume()
    labels = {"com.docker.compose.project": "shop", "com.docker.compose.service": "app"}
    labels["com.docker.compose.depends_on"] = "db:service_healthy:true,cache:service_started:false"
    container = run_container(
        helper_image, FOREVER, volumes=[f"{volume}:/srv"], labels=labels, environment={"PASSWORD": "xyzzy"}
    )
    found = docker_engine.services.inspect(container.id)
    assert found is not None
    return found


def test_what_is_known_of_a_service(docker_engine: DockerEngine, service: Service, helper_image: str) -> None:
    volume = docker_engine.find(VolumeSpec("v", volume=service.mounts[0].source))
    assert list(docker_engine.services.users(volume)) == [service]
    assert list(docker_engine.services.of_project("shop")) == [service]
    assert (service.project, service.service, service.depends_on) == ("shop", "app", ("db", "cache"))
    assert (service.image, service.state, service.alive) == (helper_image, "running", True)
    mount = service.mount_of(volume)
    assert mount is not None
    assert (mount.destination, mount.writable) == ("/srv", True)
    assert service.environment["PASSWORD"] == "xyzzy"
    assert "xyzzy" not in repr(service)
    docker_engine.services.stop(service)
    assert [found.state for found in docker_engine.services.users(volume)] == ["exited"]


def test_acts_may_be_repeated(docker_engine: DockerEngine, service: Service) -> None:
    services = docker_engine.services
    for act, state in (
        (services.pause, "paused"),
        (services.unpause, "running"),
        (services.stop, "exited"),
        (services.start, "running"),
    ):
        act(service)
        act(service)
        seen = services.inspect(service.id)
        assert seen is not None
        assert seen.state == state
    assert services.health(service) == "running"
    services.stop(service)
    assert services.health(service) == "gone"


def test_commands(docker_engine: DockerEngine, service: Service) -> None:
    said = docker_engine.services.run(
        service, ["sh", "-c", 'echo "$A $(id -u)"; echo no >&2; exit 3'], user="999", environment={"A": "b"}
    )
    assert (said.exit_code, said.stdout, said.stderr) == (3, "b 999\n", "no\n")
    began = time.monotonic()
    with pytest.raises(SourceError, match=r"longer than 0\.5 s"):
        docker_engine.services.run(service, ["sleep", "20"], timeout_seconds=0.5)
    assert time.monotonic() - began < 10
    docker_engine.services.stop(service)
    with pytest.raises(SourceError, match="not running"):
        docker_engine.services.run(service, ["true"])


def test_examine_reads_the_volume_and_nothing_else(
    docker_engine: DockerEngine, service: Service, volume_root: Callable[[str], Path]
) -> None:
    """In the service's own image, whether it runs or not."""
    volume = docker_engine.find(VolumeSpec("v", volume=service.mounts[0].source))
    secret = volume_root(volume.source) / "secret"
    secret.write_text("kept")
    secret.chmod(0)
    os.chown(secret, 999, 999)
    docker_engine.services.stop(service)
    script = 'cat "$1"; touch new && exit 9; ls /sys/class/net; echo first >&2; echo last >&2; exit 3'
    said = docker_engine.services.examine(service, volume, script, ["secret"])
    assert (said.exit_code, said.stdout, said.stderr) == (3, "keptlo\n", "last")
    assert not secret.with_name("new").exists()


@pytest.mark.parametrize("kind", ["docker-fifo-gnu", "docker-attach-gnu"])
def test_tar_from_a_helper_beside_it(
    kind: str, docker_engines: Callable[[str], DockerEngine], service: Service
) -> None:
    script = 'read -r secret; cd /tmp && id -u >who && echo "$A" >what && echo "$secret" >told && tar -cf - *'
    services = docker_engines(kind).services
    with services.tar_from(
        service, ["sh", "-c", script], user="999", environment={"A": "b"}, stdin=b"xyzzy plugh\n"
    ) as stream:
        data = everything(stream)
        stream.finish()
    with tarfile.open(fileobj=BytesIO(data)) as tar:
        read = {member.name: tar.extractfile(member).read() for member in tar.getmembers()}  # type: ignore[union-attr]
    assert read == {"who": b"999\n", "what": b"b\n", "told": b"xyzzy plugh\n"}


@pytest.mark.parametrize("kind", ["docker-fifo-gnu", "docker-attach-gnu"])
def test_a_helper_that_fails_is_an_error(
    kind: str, docker_engines: Callable[[str], DockerEngine], service: Service
) -> None:
    services = docker_engines(kind).services
    with services.tar_from(service, ["sh", "-c", "echo part; echo no such thing >&2; exit 1"], user="0") as stream:
        everything(stream)
        with pytest.raises(SourceError, match="no such thing"):
            stream.finish()


def everything(stream: TarStream) -> bytes:
    buffer = memoryview(bytearray(1 << 20))
    parts = []
    while count := stream.readinto(buffer):
        parts.append(bytes(buffer[:count]))
    return b"".join(parts)
