"""Drills of real services on a real Docker Engine: what they prove, what they catch, and what they leave alone."""

from __future__ import annotations

import json
import socket
import sqlite3
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest

from tests.support.cli import Cli
from tests.support.dockerd import Host

pytestmark = pytest.mark.docker

DRILL: dict[str, str | list[str] | bool] = {"label": ["backupd.drill"]}


@dataclass
class Stack:
    """A Compose project of the tests' own, without Compose."""

    project: str
    client: docker.DockerClient
    make_volume: Callable[..., str]
    run_container: Callable[..., Any]

    def volume(self, name: str) -> str:
        labels = {"com.docker.compose.project": self.project, "com.docker.compose.volume": name}
        return self.make_volume(f"{self.project}_{name}", labels=labels)

    def start(self, service: str, image: str, command: Any = None, **rest: Any) -> Any:
        depends = rest.pop("depends_on", "")
        labels = {
            "com.docker.compose.project": self.project,
            "com.docker.compose.service": service,
            "com.docker.compose.depends_on": depends,
            **rest.pop("labels", {}),
        }
        return self.run_container(image, command, name=f"{self.project}-{service}-1", labels=labels, **rest)

    def leftovers(self) -> list[str]:
        return [
            *(str(box.name) for box in self.client.containers.list(all=True, filters=DRILL)),
            *(str(net.name) for net in self.client.networks.list(filters=DRILL)),
            *(str(volume.name) for volume in self.client.volumes.list(filters=DRILL)),
        ]


@pytest.fixture
def stack(
    docker_client: docker.DockerClient, make_volume: Callable[..., str], run_container: Callable[..., Any]
) -> Iterator[Stack]:
    stack = Stack(f"shop{uuid.uuid4().hex[:6]}", docker_client, make_volume, run_container)
    yield stack
    assert stack.leftovers() == []


@pytest.fixture
def cli_for(make_cli: Callable[..., Cli], docker_host: Host, helper_image: str, stack: Stack) -> Callable[..., Cli]:
    def make(**volumes: dict[str, Any]) -> Cli:
        return make_cli(
            project=stack.project, docker={"host": docker_host.url, "helper_image": helper_image}, volumes=volumes
        )

    return make


def wait_healthy(container: Any, within: float = 180) -> None:
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        container.reload()
        if container.attrs["State"].get("Health", {}).get("Status") == "healthy":
            return
        assert container.status == "running", container.logs().decode()
        time.sleep(0.1)
    pytest.fail(f"{container.name} is not healthy: {container.logs().decode()}")


def run(container: Any, *command: str) -> str:
    code, output = container.exec_run(list(command))
    assert code == 0, output.decode()
    return str(output.decode().strip())


def sql(container: Any, query: str, database: str = "postgres") -> str:
    return run(container, "psql", "-U", "postgres", "-d", database, "-At", "-v", "ON_ERROR_STOP=1", "-c", query)


def start_postgres(stack: Stack, image: str, **rest: Any) -> Any:
    environment = {"POSTGRES_PASSWORD": "correct-horse-battery", "POSTGRES_INITDB_ARGS": "--data-checksums"}
    container = stack.start(
        "postgres",
        image,
        environment=environment,
        volumes=[f"{stack.volume('postgres_data')}:/var/lib/postgresql/data"],
        **rest,
    )
    wait_healthy(container)
    return container


def texts(document: Any, volume: str, verdict: str) -> list[str]:
    return [
        finding["text"]
        for found in document["drill"]["volumes"]
        if found["volume"] == volume
        for finding in found["findings"]
        if finding["verdict"] == verdict
    ]


def test_a_snapshot_is_proven(
    stack: Stack, cli_for: Callable[..., Cli], postgres_image: str, redis_image: str, tmp_path: Path
) -> None:
    postgres = start_postgres(stack, postgres_image, ports={"5432/tcp": ("127.0.0.1", None)})
    sql(postgres, "create database shop")
    sql(postgres, "create table orders as select i as id, md5(i::text) as body from generate_series(1, 5000) i", "shop")
    sql(postgres, "create table notes as select 1 as id", "shop")
    conf = tmp_path / "redis.conf"
    conf.write_text("requirepass xyzzy-pass\nsave 3600 1\n")
    conf.chmod(0o644)
    redis = stack.start(
        "redis",
        redis_image,
        ["/etc/redis.conf"],
        volumes=[f"{stack.volume('redis_data')}:/data", f"{conf}:/etc/redis.conf:ro"],
        depends_on="postgres:service_healthy:true",
    )
    wait_healthy(redis)
    run(redis, "redis-cli", "-a", "xyzzy-pass", "set", "greeting", "hello")
    run(redis, "redis-cli", "-a", "xyzzy-pass", "save")
    checks = [
        {"command": ["sh", "-c", "psql -U postgres -d shop -At -c 'select count(*) from orders'"], "expect": "^5000$"}
    ]
    cli = cli_for(postgres={"volume": "postgres_data", "drill": {"checks": checks}}, redis={"volume": "redis_data"})
    snapshot = cli.json("backup")["snapshot"]
    before = [stack.client.api.inspect_container(box.id) for box in (postgres, redis)]

    document = cli.json("drill")

    record = document["drill"]
    assert record["outcome"] == "proven", json.dumps(record, indent=1)
    assert document["kept"] is True
    assert [volume["outcome"] for volume in record["volumes"]] == ["proven", "proven"]
    counts = {key: value for volume in record["volumes"] for key, value in volume["counts"].items()}
    assert counts["shop: public.orders"] == 5000
    assert counts["keys"] == 1
    proven = texts(document, "postgres", "proven")
    assert any(text.startswith("healthy after") for text in proven)
    assert "2 of 2 databases answer: postgres, shop" in proven
    assert "pg_amcheck: every table and every B-tree index is right" in proven
    assert any("is as expected" in text for text in proven)
    assert record["recovery_seconds"] > 0
    assert record["age_seconds"] > 0
    after = [stack.client.api.inspect_container(box.id) for box in (postgres, redis)]
    for was, now in zip(before, after, strict=True):
        for volatile in (was, now):  # what their own health checks move
            volatile["State"].pop("Health")
            volatile.pop("ExecIDs")
            volatile["Mounts"].sort(key=lambda mount: mount["Destination"])  # in no order of its own
        assert was == now
    stored = "".join(path.read_text() for path in (tmp_path / "backups" / "drills").rglob("*.json"))
    assert "correct-horse-battery" not in stored
    assert "xyzzy-pass" not in stored
    listed = cli.run("list").stdout
    assert "PROVEN" in listed
    assert time.strftime("%Y-%m-%d") in listed.splitlines()[1].rpartition("complete")[2]
    assert "pg_amcheck" in cli.run("show", snapshot["id"]).stdout
    assert cli.json("show", snapshot["id"])["drills"][0]["id"] == record["id"]


def test_flipped_bytes_in_a_table_are_caught(
    stack: Stack, cli_for: Callable[..., Cli], postgres_image: str, volume_root: Callable[[str], Path]
) -> None:
    """In the volume before it was copied, so that every checksum of the repository is right; and in the repository."""
    postgres = start_postgres(stack, postgres_image)
    sql(postgres, "create table orders as select i as id, md5(i::text) as body from generate_series(1, 20000) i")
    table = sql(postgres, "select pg_relation_filepath('orders')")
    postgres.stop(timeout=30)
    cli = cli_for(postgres={"volume": "postgres_data"})
    good = cli.json("backup")["snapshot"]
    file = volume_root(f"{stack.project}_postgres_data") / table
    with file.open("r+b") as pages:
        pages.seek(3 * 8192 + 4000)
        flipped = bytes(byte ^ 0xFF for byte in pages.read(64))
        pages.seek(3 * 8192 + 4000)
        pages.write(flipped)
    bad = cli.json("backup")["snapshot"]

    result = cli.run("drill", code=13)

    assert "pg_amcheck" in result.stdout
    assert "invalid page" in result.stdout or "verification failed" in result.stdout
    assert f"the drill of snapshot {bad['id'][:8]} failed: postgres" in result.stderr
    states = {line.split()[0]: line for line in cli.run("list").stdout.splitlines()}
    assert "✗" in states[bad["id"][:8]]
    assert "✗" not in states[good["id"][:8]]

    (data,) = {need["key"] for archive in good["archives"] for need in archive["needs"]}
    stored = Path(json.loads(cli.run("config", "show", "--json").stdout)["stores"]["local"]["path"], data)
    content = bytearray(stored.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = bytes(byte ^ 0xFF for byte in content[middle : middle + 64])
    stored.chmod(0o600)
    stored.write_bytes(content)
    document = cli.json("drill", good["id"], code=13)
    (failed,) = texts(document, "postgres", "failed")
    assert data in failed or "postgres" in failed
    assert document["drill"]["volumes"][0]["services"] == []


def test_redis_that_comes_back_empty_is_caught(
    stack: Stack, cli_for: Callable[..., Cli], redis_image: str, volume_root: Callable[[str], Path]
) -> None:
    """A dump.rdb under `appendonly yes` is not loaded, and Redis says nothing."""
    volume = stack.volume("redis_data")
    redis = stack.start("redis", redis_image, ["redis-server", "--appendonly", "yes", "--enable-debug-command", "yes"],
                        volumes=[f"{volume}:/data"])  # fmt: skip
    wait_healthy(redis)
    run(redis, "redis-cli", "debug", "populate", "1000", "key", "100")
    run(redis, "redis-cli", "bgrewriteaof")
    while "aof_rewrite_in_progress:1" in (info := run(redis, "redis-cli", "info")) or "scheduled:1" in info:
        time.sleep(0.1)
    run(redis, "redis-cli", "save")
    redis.stop()
    cli = cli_for(redis={"volume": "redis_data"})
    cli.run("backup")
    good = cli.json("drill")["drill"]
    assert good["volumes"][0]["counts"]["keys"] == 1000

    for path in sorted((volume_root(volume) / "appendonlydir").iterdir()):
        path.unlink()
    (volume_root(volume) / "appendonlydir").rmdir()
    cli.run("backup")
    document = cli.json("drill", code=13)

    failed = texts(document, "redis", "failed")
    assert any("not a single key, although dump.rdb" in text and "appendonly yes" in text for text in failed)
    assert any("1,000 in the drill before" in text for text in failed)


def test_services_that_do_not_come_up(stack: Stack, cli_for: Callable[..., Cli], helper_image: str) -> None:
    waits = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"]
    health = {"test": ["CMD", "false"], "interval": 200_000_000, "timeout": 1_000_000_000, "retries": 2}
    never, gone = stack.volume("never"), stack.volume("gone")
    stack.start("never", helper_image, waits, volumes=[f"{never}:/srv"], healthcheck=health)
    script = "[ -e /srv/works ] || { echo token is hunter2hunter2; exit 7; }; " + waits[-1]
    app = stack.start("app", helper_image, ["sh", "-c", script], volumes=[f"{gone}:/srv"],
                      environment={"API_TOKEN": "hunter2hunter2"})  # fmt: skip
    app.wait()
    cli = cli_for(never={"volume": "never"}, gone={"volume": "gone"})
    cli.run("backup")

    result = cli.run("drill", "--json", code=1)

    document = json.loads(result.stdout)
    assert any("unhealthy" in text for text in texts(document, "never", "failed"))
    assert any("(code 7)" in text for text in texts(document, "gone", "failed"))
    assert "token is ********" in result.stderr
    assert "hunter2" not in result.stderr + result.stdout
    assert document["drill"]["outcome"] == "failed"


def test_a_copy_is_cut_off(
    stack: Stack, cli_for: Callable[..., Cli], alpine_image: str, docker_client: docker.DockerClient, tmp_path: Path
) -> None:
    """What the copies look like while they run, and what they cannot reach."""
    volume, other, wal = stack.volume("data"), stack.volume("other"), stack.volume("wal")
    config = tmp_path / "config"
    config.mkdir()
    (config / "app.conf").write_text("setting = 1\n")
    with_socket = tmp_path / "with_socket"
    with_socket.mkdir()
    with socket.socket(socket.AF_UNIX) as listener:  # its name stays when it is closed
        listener.bind(str(with_socket / "s"))
    port = 18000 + int(uuid.uuid4().hex[:3], 16)
    stack.run_container(
        alpine_image, ["sh", "-c", f"while :; do nc -l -p {port} -e echo outside; done"], network_mode="host"
    )
    forever = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"]
    mounts = [f"{volume}:/data", f"{other}:/other", f"{config}:/config", f"{with_socket}:/sockets"]
    original = stack.start(
        "app", alpine_image, forever, volumes=mounts, restart_policy={"Name": "always"},
        ports={"80/tcp": None}, environment={"MODE": "production"}, working_dir="/data", shm_size="128m",
        ulimits=[docker.types.Ulimit(name="nofile", soft=4096, hard=4096)], tmpfs={"/scratch": "size=1m"},
        labels={"traefik.enable": "true"}, depends_on="peer:service_started:true",
    )  # fmt: skip
    stack.start("peer", alpine_image, forever, volumes=[f"{wal}:/wal"])
    look = "ip -o -4 addr show eth0 | sed 's/.*inet \\([0-9.]*\\)\\..*/\\1/'"
    script = f"""
        gateway=$({look}).1
        timeout 3 nc $gateway {port} </dev/null && echo REACHED-HOST
        timeout 3 nc 10.0.2.2 {port} </dev/null && echo REACHED-OUT
        touch /config/x 2>/dev/null && echo WROTE-CONFIG
        cat /config/app.conf
        ls /sockets /other
        timeout 5 nslookup peer | grep -q 'Name:.*peer' && echo FOUND-PEER
        echo "mode $MODE in $(pwd)"
        touch /tmp/looked
    """
    wait = ["sh", "-c", "until [ -e /tmp/looked ]; do sleep 0.1; done"]
    reach = f"timeout 3 nc $({look}).1 {port} </dev/null"
    assert original.exec_run(["sh", "-c", reach]).output == b"outside\n", "what the copy must not, the original can"
    cli = cli_for(
        data={"volume": "data", "drill": {"checks": [{"command": wait, "timeout": "2m"}]}},
        wal={"volume": "wal"},
    )
    cli.run("backup")
    process = subprocess.Popen(
        cli.command("drill", "--json"), env=cli.env(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    seen: dict[str, Any] = {}
    outputs: list[bytes] = []
    while process.poll() is None:
        for box in docker_client.api.containers(filters=DRILL):
            if "-app-" in box["Names"][0] and not seen:
                seen = docker_client.api.inspect_container(box["Id"])
                started = docker_client.containers.get(box["Id"]).exec_run(["sh", "-c", script])
                assert isinstance(started.output, bytes)
                outputs.append(started.output)
                network = docker_client.networks.get(next(iter(seen["NetworkSettings"]["Networks"])))
                assert network.attrs["Internal"] is True
        time.sleep(0.1)
    process.communicate()

    host = seen["HostConfig"]
    assert seen["Image"] == docker_client.api.inspect_container(original.id)["Image"]
    assert host["PortBindings"] in (None, {})
    assert not any(seen["NetworkSettings"]["Ports"].values())
    assert host["Privileged"] is False
    assert host["RestartPolicy"]["Name"] == "no"
    assert host["LogConfig"]["Type"] == "json-file"
    assert host["Memory"] == 1 << 30
    assert host["NanoCpus"] == 1_000_000_000
    assert host["ShmSize"] == 128 << 20
    assert host["Tmpfs"] == {"/scratch": "size=1m"}
    assert [limit["Name"] for limit in host["Ulimits"]] == ["nofile"]
    labels = seen["Config"]["Labels"]
    assert set(labels) == {"backupd.drill", "backupd.home", "backupd.job", "backupd.owner"}
    sources = {mount["Destination"]: mount for mount in seen["Mounts"]}
    assert set(sources) == {"/data", "/other", "/config"}
    assert {volume, other}.isdisjoint(mount.get("Name") for mount in sources.values())
    assert sources["/config"]["RW"] is False
    said = outputs[0].decode()
    assert "REACHED" not in said
    assert "outside" not in said
    assert "WROTE-CONFIG" not in said
    assert "setting = 1" in said
    assert "FOUND-PEER" in said
    assert "mode production in /data" in said


def test_databases_of_sqlite(
    stack: Stack, cli_for: Callable[..., Cli], helper_image: str, volume_root: Callable[[str], Path]
) -> None:
    root = volume_root(stack.volume("app_data"))
    with sqlite3.connect(root / "no-suffix") as database:
        database.execute("create table t (x)")
        database.executemany("insert into t values (?)", ((f"row {i}" * 20,) for i in range(2000)))
    database.close()
    (root / "pretends").write_bytes(b"no database" * 512)
    cli = cli_for(app={"volume": "app_data"})
    cli.run("backup")
    document = cli.json("drill")
    assert document["drill"]["outcome"] == "files"
    assert "no-suffix: integrity_check ok, 2,000 rows in 1 tables" in texts(document, "app", "proven")
    assert any("no container uses" in text for text in texts(document, "app", "skipped"))

    pages = bytearray((root / "no-suffix").read_bytes())
    pages[4096 * 3 : 4096 * 3 + 512] = bytes(512)
    (root / "no-suffix").write_bytes(pages)
    cli.run("backup")
    document = cli.json("drill", code=13)
    assert any(text.startswith("no-suffix: ") for text in texts(document, "app", "failed"))
    assert "files" in cli.run("list").stdout
