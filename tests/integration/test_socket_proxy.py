"""backupd through the socket proxy, with a real engine: what it calls works, and what would break out does not."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import docker
import pytest

from backupd.engine import DockerEngine, DockerOptions
from backupd.model import VolumeSpec
from backupd.socketproxy import ProxyServer, Rules
from tests.support.cli import Cli
from tests.support.dockerd import Host
from tests.support.engines import helper_names
from tests.support.postgres import PGDATA, TRUST, Server
from tests.support.stacks import Stack

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]


@pytest.fixture
def stack(
    docker_client: docker.DockerClient,
    run_container: Callable[..., Any],
    make_volume: Callable[..., str],
    volume_root: Callable[[str], Path],
    helper_image: str,
) -> Stack:
    return Stack(docker_client, run_container, make_volume, volume_root, helper_image)


@pytest.fixture
def proxy(docker_host: Host, stack: Stack, helper_image: str, tmp_path: Path) -> Iterator[str]:
    """The URL of a proxy for the stack's project."""
    engine = docker_host.url.removeprefix("unix://")
    listen = tmp_path / "proxy.sock"
    with ProxyServer(listen, engine, Rules(stack.project, (helper_image,), engine_socket=engine)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"unix://{listen}"
        server.shutdown()
        thread.join()


@pytest.fixture
def engine(proxy: str, stack: Stack, helper_image: str, tmp_path: Path) -> Iterator[DockerEngine]:
    options = DockerOptions(tmp_path / "pipes", host=proxy, project=stack.project, helper_image=helper_image)
    with closing(DockerEngine(options)) as engine:
        yield engine


def test_tar_jobs(engine: DockerEngine, stack: Stack) -> None:
    volume = stack.volume("data")
    (stack.root(volume) / "file").write_bytes(b"x" * 3_000_000)
    found = engine.find(VolumeSpec("data", volume="data"))
    taken = bytearray()
    buffer = memoryview(bytearray(1 << 20))
    with engine.tar_out(found) as output:
        while count := output.readinto(buffer):
            taken += buffer[:count]
        output.finish()
    assert type(output).__name__ == "AttachOutput"  # no bind mounts, so no pipes
    with engine.tar_in(found, "copy") as target:
        target.write(taken)
        target.finish()
    assert (stack.root(volume) / "copy" / "file").read_bytes() == b"x" * 3_000_000


def test_a_stack_is_backed_up_restored_and_drilled(
    proxy: str, stack: Stack, make_cli: Callable[..., Cli], postgres_image: str, tmp_path: Path
) -> None:
    """PostgreSQL from a helper beside it, files with hooks and a standstill, services stopped and started, a drill."""
    database, storage = stack.volume("database"), stack.volume("storage")
    site = tmp_path / "site"
    site.mkdir()
    labels = {"com.docker.compose.project": stack.project, "com.docker.compose.service": "postgres"}
    server = Server(
        stack.run_container(
            postgres_image,
            name=f"{stack.project}-postgres-1",
            labels=labels,
            environment=TRUST,
            volumes=[f"{database}:{PGDATA}"],
        )
    ).wait()
    server.sql("create table t as select generate_series(1, 1000) i")
    app = stack.container("app", volumes=[f"{storage}:/srv", f"{site}:/site:ro"])
    (stack.root(storage) / "photo").write_bytes(b"photo" * 1000)
    cli = make_cli(
        project=stack.project,
        docker={"host": proxy, "helper_image": stack.image},
        volumes={
            "database": {"volume": "database"},
            "storage": {
                "volume": "storage",
                "consistency": "stop",
                "pre": [{"service": "app", "command": "echo hooked >/srv/hooked"}],
            },
        },
    )
    taken = cli.json("backup")["snapshot"]
    kinds = {archive["volume"]: archive["consistency"] for archive in taken["archives"]}
    assert kinds == {"database": "postgres", "storage": "stop"}
    server.sql("drop table t")
    (stack.root(storage) / "photo").unlink()
    cli.run("restore", taken["id"], "--yes")
    server.wait()
    assert server.sql("select count(*) from t") == "1000"
    assert (stack.root(storage) / "photo").read_bytes() == b"photo" * 1000
    assert (stack.root(storage) / "hooked").exists()
    assert stack.state(app) == "running"
    assert cli.json("drill", taken["id"])["drill"]["good"] is True
    cli.run("recover")
    assert helper_names(stack.client) == []


def test_a_volume_that_is_gone_is_made_again(proxy: str, stack: Stack, make_cli: Callable[..., Cli]) -> None:
    storage = stack.volume("storage")
    (stack.root(storage) / "photo").write_bytes(b"photo")
    cli = make_cli(
        project=stack.project,
        docker={"host": proxy, "helper_image": stack.image},
        volumes={"storage": {"volume": "storage"}},
    )
    taken = cli.json("backup")["snapshot"]["id"]
    stack.client.volumes.get(storage).remove()
    cli.run("restore", taken, "--yes")
    assert (stack.root(storage) / "photo").read_bytes() == b"photo"
