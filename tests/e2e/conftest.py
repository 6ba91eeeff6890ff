"""The image and the stack on an engine that is ours alone: containers of the overlay have fixed names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import docker
import pytest

from tests.support import seaweedfs
from tests.support.compose import BASE, OURS, Compose
from tests.support.dockerd import Host, private_host
from tests.support.images import Images
from tests.support.sidecar_image import SidecarImage


@pytest.fixture(scope="module")
def e2e_host(docker_host: Host) -> Iterator[Host]:
    """A private engine, whose containers reach this machine's loopback, where the S3 server is."""
    if docker_host.private:
        yield docker_host
    else:
        with private_host() as host:
            yield host


@pytest.fixture(scope="module")
def e2e_client(e2e_host: Host) -> Iterator[docker.DockerClient]:
    with closing(docker.DockerClient(base_url=e2e_host.url, version="auto", timeout=120)) as client:
        yield client


@pytest.fixture(scope="module")
def s3_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An S3 server with the bucket of the configuration, as containers see it."""
    with seaweedfs.running(tmp_path_factory.mktemp("seaweedfs")) as server:
        seaweedfs.make_bucket(server, "contravento-backups")
        yield server.http_url.replace("127.0.0.1", "10.0.2.2")


@pytest.fixture(scope="module")
def make_stack(
    e2e_host: Host, s3_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Compose]]:
    """Call it for a stack with backupd that is up and healthy, also by further files; all are removed in the end."""
    made: list[Compose] = []
    with Images(e2e_host) as images, closing(SidecarImage(e2e_host)) as sidecar:
        for name in ("postgres", "redis", "alpine"):
            images.tag(name)
        image = sidecar.tag()

        def make(*more: str, **variables: str) -> Compose:
            directory = tmp_path_factory.mktemp("stack")
            compose = Compose(directory, e2e_host.url, (*BASE, *more, *OURS), {**common(directory), **variables})
            made.append(compose)
            compose.run("up", "-d", "--wait", "--wait-timeout", "600")
            return compose

        def common(directory: Path) -> dict[str, str]:
            socket = Path(e2e_host.url.removeprefix("unix://"))
            secrets = {
                "BACKUPD_ACCESS_KEY_ID_FILE": seaweedfs.ACCESS_KEY,
                "BACKUPD_SECRET_ACCESS_KEY_FILE": seaweedfs.SECRET_KEY,
                "BACKUPD_WEB_TOKEN_FILE": "test-token-0123456789",
            }
            for name, secret in secrets.items():
                (directory / name.lower()).write_text(secret)
                (directory / name.lower()).chmod(0o444)
            return {
                "APP_ENV": "prod",
                "BACKUPD_IMAGE": image,
                "BACKUPD_DOCKER_SOCKET": str(socket),
                "BACKUPD_DOCKER_GID": str(socket.stat().st_gid),
                "TEST_S3_URL": s3_url,
                **{name: f"./{name.lower()}" for name in secrets},
            }

        try:
            yield make
        finally:
            for compose in made:
                compose.run("down", "-v", "--remove-orphans", "-t", "5", code=None)
