"""backupd through the socket proxy, with a real engine: what it calls works, and what would break out does not."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.errors import APIError
from docker.types import LogConfig, Mount

from backupd.engine import DockerEngine, DockerOptions
from backupd.model import VolumeSpec
from backupd.socketproxy import ProxyServer, Rules
from tests.support.cli import Cli
from tests.support.dockerd import Host
from tests.support.engines import helper_names
from tests.support.postgres import PGDATA, TRUST, Server
from tests.support.stacks import FOREVER, Stack

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
        target.write(bytes(taken))
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
    assert cli.json("drill", taken["id"])["drill"]["snapshot"] == taken["id"]  # exit code 0: it is good
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


def raw(url: str, request: bytes, later: bytes = b"") -> bytes:
    """What the proxy answers to bytes, and to those that are sent behind its first answer."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        connection.connect(url.removeprefix("unix://"))
        connection.sendall(request)
        answer = connection.recv(65536)
        if later:
            with contextlib.suppress(OSError):  # it has hung up
                connection.sendall(later)
                connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):  # it has hung up, and left unread what came too much
            while more := connection.recv(65536):
                answer += more
    return answer


def test_ways_out(
    proxy: str,
    stack: Stack,
    make_volume: Callable[..., str],
    run_container: Callable[..., Any],
    alpine_image: str,
) -> None:
    """The same through Docker's own client, and in bytes; nothing may have come of it."""
    stack.volume("data")
    service = stack.container("app")
    theirs = make_volume()
    stranger = run_container(stack.image, FOREVER, volumes=[f"{theirs}:/srv"], init=True)
    powerful = stack.container("agent", network_mode="host")
    beside = stack.container("beside", network_mode=f"container:{powerful.id}")
    root = stack.client.info()["DockerRootDir"]
    librarian = stack.container("librarian", volumes=[f"{root}:/library:ro"])
    before = {container.id for container in stack.client.containers.list(all=True)}
    client = docker.APIClient(base_url=proxy, version="auto", timeout=60)
    harmless: dict[str, Any] = {
        "network_mode": "none",
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "mem_limit": "64m",
        "memswap_limit": "64m",
        "pids_limit": 10,
        "log_config": LogConfig(type="none"),
    }

    def create(image: str = stack.image, name: str = "backupd-1", **more: Any) -> dict[str, Any]:
        return client.create_container(  # type: ignore[no-any-return]
            image,
            name=name,
            entrypoint=["true"],
            labels={"backupd.job": "1"},
            host_config=client.create_host_config(**harmless | more),
        )

    client.remove_container(create()["Id"])  # as it stands it is a helper
    with closing(client):
        attempts: list[Callable[[], object]] = [
            lambda: create(privileged=True),
            lambda: create(binds=["/:/host"]),
            lambda: create(mounts=[Mount("/data", "/", type="bind")]),
            lambda: create(mounts=[Mount("/data", theirs, type="volume", no_copy=True)]),
            lambda: create(pid_mode="host"),
            lambda: create(network_mode=f"container:{powerful.id}"),
            lambda: create(network_mode=f"container:{beside.id}"),
            lambda: create(network_mode=f"container:{librarian.id}"),
            lambda: create(mounts=[Mount("/look", root, type="bind", read_only=True)]),
            lambda: create(cap_add=["SYS_ADMIN"]),
            lambda: create(devices=["/dev/null"]),
            lambda: create(volumes_from=[stranger.id]),
            lambda: create(name="postgres"),
            lambda: create(image=alpine_image),
            lambda: client.exec_create(stranger.id, ["id"]),
            lambda: client.exec_create(powerful.id, ["id"]),
            lambda: client.exec_create(beside.id, ["id"]),
            lambda: client.exec_create(librarian.id, ["id"]),
            lambda: client.stop(stranger.id),
            lambda: client.kill(stranger.id),
            lambda: client.logs(stranger.id),
            lambda: client.inspect_container(stranger.id),
            lambda: client.remove_container(powerful.id, force=True),
            lambda: client.get_archive(powerful.id, "/etc"),
            lambda: client.inspect_volume(theirs),
            lambda: client.remove_volume(theirs),
            lambda: client.create_volume(
                f"{stack.project}_root", driver_opts={"type": "none", "o": "bind", "device": "/"}
            ),
            lambda: client.pull("alpine"),
            lambda: client.commit(powerful.id, "x"),
            lambda: client.tag(stack.image, "evil"),
            client.init_swarm,
            client.plugins,
            client.prune_containers,
            lambda: client.connect_container_to_network(stranger.id, "bridge"),
            lambda: client.update_container(stranger.id, mem_limit="64m"),
        ]
        for attempt in attempts:
            with pytest.raises(APIError) as refused:
                attempt()
            assert refused.value.status_code == 403
            assert "backupd's socket proxy" in str(refused.value)
        # What a standing container refuses is answered in HTTP, and the Engine waits for a next request.
        command = client.exec_create(service.id, ["true"])["Id"]
        client.pause(service.id)
        start = f"POST /v1.41/exec/{command}/start HTTP/1.1\r\nHost: d\r\nContent-Length: 2\r\n\r\n{{}}"
        answer = raw(proxy, start.encode(), b"GET /v1.41/swarm HTTP/1.1\r\nHost: d\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 409 ")
        assert answer.count(b"HTTP/1.1 ") == 1
        client.unpause(service.id)
    for line in (
        "GET /v1.41/../../containers/json HTTP/1.1",
        "GET //containers/json HTTP/1.1",
        "POST /v1.41/containers/create HTTP/1.1\r\nTransfer-Encoding: chunked",
        "GET /version HTTP/1.1\r\nContent-Length: 0\r\nContent-Length: 1",
        "GET /version HTTP/1.1\r\n\r\nGET /v1.41/swarm HTTP/1.1",
    ):
        assert raw(proxy, f"{line}\r\nHost: d\r\n\r\n".encode()).startswith(b"HTTP/1.1 400 "), line
    assert {container.id for container in stack.client.containers.list(all=True)} == before
    assert stack.states(stranger, powerful) == {"running"}
    assert Path(proxy.removeprefix("unix://")).stat().st_mode & 0o777 == 0o600


def test_an_engine_that_is_gone(tmp_path: Path) -> None:
    listen = tmp_path / "proxy.sock"
    with ProxyServer(listen, str(tmp_path / "none"), Rules("shop", ())) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        answer = raw(f"unix://{listen}", b"GET /version HTTP/1.1\r\n\r\n")
        server.shutdown()
        thread.join()
    assert answer.startswith(b"HTTP/1.1 502 ")
