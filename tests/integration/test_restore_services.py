"""Restores among real containers: stopped, exchanged, started, and back on the old data if one is not well."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_cli import on_a_terminal
from tests.integration.test_services import run, sql
from tests.support.cli import Cli
from tests.support.dockerd import Host

pytestmark = pytest.mark.docker

FOREVER = ["sh", "-c", "trap 'exit 0' TERM; sleep infinity & wait"]
QUICK = 200_000_000  # nanoseconds between looks at the health
PGDATA = "/var/lib/postgresql/data"


@dataclass
class Stack:
    """Containers with the labels that Compose gives them."""

    project: str
    volumes: dict[str, str]
    start: Callable[..., Any]
    volume_root: Callable[[str], Path]

    def run(self, service: str, image: str, command: Any = None, depends_on: str = "", **rest: Any) -> Any:
        labels = {"com.docker.compose.project": self.project, "com.docker.compose.service": service}
        if depends_on:
            labels["com.docker.compose.depends_on"] = depends_on
        rest.setdefault("stop_signal", "SIGTERM" if command == FOREVER else None)
        return self.start(image, command, labels=labels | rest.pop("labels", {}), name=self.name(service), **rest)

    def name(self, service: str) -> str:
        return f"{self.project}-{service}-1"

    def root(self, name: str) -> Path:
        return self.volume_root(self.volumes[name])

    def postgres(self, image: str, **rest: Any) -> Any:
        container = self.run(
            "db",
            image,
            environment={"POSTGRES_HOST_AUTH_METHOD": "trust", "POSTGRES_PASSWORD": "hunter2"},
            volumes=[f"{self.volumes['pg']}:{PGDATA}"],
            **rest,
        )
        wait_healthy(container)
        return container

    def redis(self, image: str) -> Any:
        container = self.run("cache", image, volumes=[f"{self.volumes['redis']}:/data"])
        wait_healthy(container)
        return container


def wait_healthy(container: Any) -> None:
    for _ in range(1200):
        if health(container) == "healthy":
            return
        if container.status != "running":
            break
        time.sleep(0.1)
    pytest.fail(f"{container.name} did not become healthy: {container.logs().decode()}")


def health(container: Any) -> str:
    container.reload()
    return str(container.attrs["State"].get("Health", {}).get("Status", container.status))


def started(container: Any) -> str:
    container.reload()
    return str(container.attrs["State"]["StartedAt"])


@pytest.fixture
def stack(
    make_volume: Callable[..., str], run_container: Callable[..., Any], volume_root: Callable[[str], Path]
) -> Stack:
    project = f"shop{uuid.uuid4().hex[:6]}"
    volumes = {}
    for name in ("pg", "redis"):
        labels = {"com.docker.compose.project": project, "com.docker.compose.volume": name}
        volumes[name] = make_volume(f"{project}_{name}", labels=labels)
    return Stack(project, volumes, run_container, volume_root)


@pytest.fixture
def cli(make_cli: Callable[..., Cli], stack: Stack, docker_host: Host, helper_image: str) -> Cli:
    return make_cli(
        project=stack.project,
        docker={"host": docker_host.url, "helper_image": helper_image},
        volumes={"pg": {"volume": "pg"}, "redis": {"volume": "redis", "optional": True}},
    )


def test_a_damaged_database_comes_back_among_running_services(
    cli: Cli, stack: Stack, postgres_image: str, helper_image: str
) -> None:
    db = stack.postgres(postgres_image)
    worker = stack.run(
        "worker",
        helper_image,
        FOREVER,
        depends_on="db:service_healthy:false",
        volumes=[f"{stack.volumes['pg']}:/pg:ro"],
    )
    app = stack.run("app", helper_image, FOREVER, depends_on="db:service_healthy:false")
    pool = stack.run("pool", helper_image, FOREVER, depends_on="db:service_healthy:true")
    sql(db, "create table notes as select i, md5(i::text) from generate_series(1, 10000) i")
    sql(db, "checkpoint")
    before = sql(db, "select count(*), sum(i) from notes")
    cli.run("backup")
    sql(db, "drop table notes")
    since = {container.name: started(container) for container in (db, worker, app, pool)}

    dry = cli.run("restore", "latest", "pg", "--dry-run").stdout
    order = ", ".join(stack.name(service) for service in ("worker", "pool", "db"))
    assert f"stopped, in this order: {order}\n" in dry
    assert f"{stack.name('pool')} does not use the data, but asks to be restarted" in dry
    plan = cli.json("restore", "latest", "pg", "--dry-run")["services"]
    assert [item["service"] for item in plan][-1] == "db"
    assert {item["service"]: bool(item["uses"]) for item in plan} == {"db": True, "worker": True, "pool": False}
    assert {container.name: started(container) for container in (db, worker, app, pool)} == since

    done = cli.json("restore", "latest", "pg", "--yes")

    assert sql(db, "select count(*), sum(i) from notes") == before
    assert health(db) == "healthy"
    assert done["away_seconds"].keys() == {stack.name(service) for service in ("db", "worker", "pool")}
    assert 0 < max(done["away_seconds"].values()) <= done["downtime_seconds"] < 60
    assert done["unhealthy"] is None
    now = {container.name: started(container) for container in (db, worker, app, pool)}
    assert [name for name in now if now[name] == since[name]] == [app.name]
    assert now[db.name] < now[worker.name]
    assert not list(stack.root("pg").glob(".backupd-*"))
    assert "services were away for" in cli.run("restore", done["safety_snapshot"], "pg", "--yes").stdout
    assert "notes" not in sql(db, "select tablename from pg_tables where schemaname = 'public'")


@pytest.mark.parametrize("damage", ["exits", "loops", "never healthy"])
def test_a_database_that_does_not_get_well_is_back_on_its_old_data(
    cli: Cli, stack: Stack, postgres_image: str, damage: str
) -> None:
    policy = {"Name": "always"} if damage == "loops" else {}
    db = stack.postgres(postgres_image, restart_policy=policy)
    sql(db, "create table notes as select 'hunter2'::text")
    db.stop()
    if damage == "never healthy":
        with (stack.root("pg") / "postgresql.conf").open("a") as config:
            config.write("port = 5433\n")
    else:
        (stack.root("pg") / "global" / "pg_control").rename(stack.root("pg") / "away")
    cli.run("backup")
    if damage == "never healthy":
        config_file = stack.root("pg") / "postgresql.conf"
        config_file.write_text(config_file.read_text().replace("port = 5433\n", ""))
    else:
        (stack.root("pg") / "away").rename(stack.root("pg") / "global" / "pg_control")
    db.start()
    wait_healthy(db)

    options = ["--timeout", "4s"] if damage == "never healthy" else []
    failed = cli.run("restore", "latest", "pg", "--yes", *options, code=1)

    said = {
        "exits": "ended with exit code 2",
        "loops": "keeps ending, with exit code",
        "never healthy": "was still",
    }[damage]
    assert f"error: container {stack.name('db')} {said}" in failed.stderr, failed.stderr
    assert "the old data are back in place, and all services are well again" in failed.stderr
    expected = "5433" if damage == "never healthy" else "global/pg_control"
    assert any(expected in line for line in failed.stderr.splitlines() if line.startswith(f"  {db.name} | "))
    assert "is back, after" in failed.stderr
    assert health(db) == "healthy"
    assert sql(db, "select * from notes") == "hunter2"
    assert not list(stack.root("pg").glob(".backupd-*"))
    assert cli.run("recover").stdout == "nothing was left half-done\n"
    if damage != "exits":
        return
    kept = cli.run("restore", "latest", "pg", "--yes", "--no-rollback", "--no-safety-snapshot", "--json", code=1)
    assert "the restored data stay in place (--no-rollback)" in kept.stderr
    assert "ended with exit code" in json.loads(kept.stdout)["unhealthy"]
    assert not (stack.root("pg") / "global" / "pg_control").exists()


def test_one_act_for_two_volumes(cli: Cli, stack: Stack, postgres_image: str, redis_image: str) -> None:
    """Both are exchanged with one stop of their services; as the second's is not well, both go back."""
    db, cache = stack.postgres(postgres_image), stack.redis(redis_image)
    sql(db, "create table notes as select 1 as n")
    run(cache, "redis-cli", "set", "greeting", "hello")
    run(cache, "redis-cli", "save")
    sql(db, "checkpoint")
    good = cli.json("backup")["snapshot"]["id"]
    sql(db, "update notes set n = 2")
    run(cache, "redis-cli", "set", "greeting", "bye")
    run(cache, "redis-cli", "save")
    dump = stack.root("redis") / "dump.rdb"
    right = dump.read_bytes()
    dump.write_bytes(b"GARBAGE!!" + right[9:])
    cli.environment["BACKUPD_VOLUMES__REDIS__CONSISTENCY"] = "live"  # its own strategy would have it written anew
    bad = cli.json("backup")["snapshot"]["id"]
    dump.write_bytes(right)

    failed = cli.run("restore", bad, "--yes", "--no-safety-snapshot", code=1)
    assert f"container {stack.name('cache')} ended" in failed.stderr
    assert "Wrong signature" in failed.stderr or "Fatal error" in failed.stderr
    assert (health(db), health(cache)) == ("healthy", "healthy")
    assert sql(db, "select n from notes") == "2"
    assert run(cache, "redis-cli", "get", "greeting") == "bye"

    done = cli.json("restore", good, "--yes", "--no-safety-snapshot")
    assert done["away_seconds"].keys() == {db.name, cache.name}
    assert sql(db, "select n from notes") == "1"
    assert run(cache, "redis-cli", "get", "greeting") == "hello"


COMPOSE = """
x-idle: &idle {image: IMAGE, pull_policy: never, command: [sleep, infinity], init: true, stop_grace_period: 1s}
services:
  db: {<<: *idle, network_mode: none, volumes: ["pg:/srv"]}
  pool: {<<: *idle, network_mode: none, depends_on: {db: {condition: service_started, restart: true}}}
  side: {<<: *idle, network_mode: "service:db"}
  app: {<<: *idle, network_mode: none, depends_on: [db]}
volumes: {pg: {}}
"""


def test_a_stack_that_compose_made(
    make_cli: Callable[..., Cli], docker_host: Host, docker_client: Any, helper_image: str, tmp_path: Path
) -> None:
    """What shares the database's network is restarted with it, as is what asks for it; the application is not."""
    project = f"shop{uuid.uuid4().hex[:6]}"
    (tmp_path / "compose.yaml").write_text(COMPOSE.replace("IMAGE", helper_image))
    program = [
        str(Path(sys.executable).with_name("docker-compose")),
        "-p",
        project,
        "-f",
        str(tmp_path / "compose.yaml"),
    ]
    environment = os.environ | {"DOCKER_HOST": docker_host.url}
    cli = make_cli(
        project=project,
        docker={"host": docker_host.url, "helper_image": helper_image},
        volumes={"pg": {"volume": "pg"}},
    )
    try:
        subprocess.run([*program, "up", "-d"], env=environment, check=True, capture_output=True)
        containers = {
            name: docker_client.containers.get(f"{project}-{name}-1") for name in ("db", "pool", "side", "app")
        }
        containers["db"].exec_run(["sh", "-c", "echo new >/srv/file"])
        cli.run("backup")
        containers["db"].exec_run(["sh", "-c", "echo old >/srv/file"])
        since = {name: started(container) for name, container in containers.items()}
        done = cli.json("restore", "latest", "--yes")
        assert done["away_seconds"].keys() == {f"{project}-{name}-1" for name in ("db", "pool", "side")}
        assert containers["db"].exec_run(["cat", "/srv/file"]).output == b"new\n"
        now = {name: started(container) for name, container in containers.items()}
        assert [name for name in now if now[name] == since[name]] == ["app"]
        assert now["db"] < min(now["pool"], now["side"])
        changed = subprocess.run([*program, "up", "-d"], env=environment, check=True, capture_output=True, text=True)
        assert "Recreate" not in changed.stderr
        assert {name: started(container) for name, container in containers.items()} == now
    finally:
        subprocess.run([*program, "down", "-v", "-t", "0"], env=environment, check=False, capture_output=True)


class TestLightweight:
    """Containers that merely use a volume."""

    @pytest.fixture
    def snapshot(self, cli: Cli, stack: Stack) -> str:
        (stack.root("pg") / "file").write_text("new")
        taken = cli.json("backup")["snapshot"]["id"]
        (stack.root("pg") / "file").write_text("old")
        return str(taken)

    def held(self, stack: Stack) -> str:
        return (stack.root("pg") / "file").read_text()

    def user(self, stack: Stack, image: str, service: str = "db", **rest: Any) -> Any:
        """One that has read the file when it became healthy."""
        check = {"test": ["CMD", "test", "-e", "/srv/file"], "interval": QUICK, "timeout": 10**9, "retries": 3}
        volumes = [f"{stack.volumes['pg']}:/srv"]
        container = stack.run(service, image, FOREVER, volumes=volumes, healthcheck=check, **rest)
        wait_healthy(container)
        return container

    def test_a_stack_that_is_down(self, cli: Cli, stack: Stack, snapshot: str, helper_image: str) -> None:
        db = self.user(stack, helper_image)
        db.stop()
        done = cli.json("restore", snapshot, "pg", "--yes")
        assert (done["downtime_seconds"], done["away_seconds"]) == (0.0, {})
        assert self.held(stack) == "new"
        assert health(db) != "healthy"
        db.reload()
        assert db.status == "exited"

    def test_one_that_is_paused(self, cli: Cli, stack: Stack, snapshot: str, helper_image: str) -> None:
        db = self.user(stack, helper_image)
        since = started(db)
        db.pause()
        done = cli.run("restore", snapshot, "pg", "--yes")
        assert "is paused now, and will be again" in done.stdout
        db.reload()
        assert db.status == "paused"
        assert started(db) != since
        db.unpause()

    def test_one_of_another_project(self, cli: Cli, stack: Stack, snapshot: str, helper_image: str) -> None:
        guest = self.user(stack, helper_image, "guest", labels={"com.docker.compose.project": "elsewhere"})
        since = started(guest)
        refused = cli.error("restore", snapshot, "pg", "--yes", code=1)
        assert f"{guest.name} uses the volume and is of project elsewhere" in refused
        assert "--force" in refused
        dry = cli.run("restore", snapshot, "pg", "--dry-run", code=1)
        assert dry.stdout.endswith("dry run: nothing was changed\n")
        assert f"warning: {guest.name} uses the volume" in dry.stderr
        assert (self.held(stack), started(guest)) == ("old", since)
        assert len(cli.json("list")["snapshots"]) == 1
        cli.run("restore", snapshot, "pg", "--yes", "--force")
        assert (self.held(stack), health(guest)) == ("new", "healthy")
        assert started(guest) != since

    def test_somebody_is_asked_about_a_stranger(self, cli: Cli, stack: Stack, snapshot: str, helper_image: str) -> None:
        guest = self.user(stack, helper_image, "guest", labels={"com.docker.compose.project": "elsewhere"})
        since = started(guest)
        for answer, code, held in ((b"n\n", 130, "old"), (b"y\nn\n", 130, "old"), (b"y\ny\n", 0, "new")):
            screen, status = on_a_terminal(cli, answer, "restore", snapshot, "pg", "--no-safety-snapshot")
            assert "Stop these containers as well? [y/N]" in screen
            assert ("Restore? [y/N]" in screen) is (answer != b"n\n")
            assert (status, self.held(stack)) == (code, held), screen
            assert (started(guest) != since) is (held == "new")

    def test_one_that_would_vanish(self, cli: Cli, stack: Stack, snapshot: str, helper_image: str) -> None:
        shell = self.user(stack, helper_image, "shell", auto_remove=True)
        refused = cli.error("restore", snapshot, "pg", "--yes", code=1)
        assert f"{shell.name} was started with --rm" in refused
        assert health(shell) == "healthy"
        cli.run("restore", snapshot, "pg", "--yes", "--force")
        assert self.held(stack) == "new"

    def test_one_that_swarm_runs(self, cli: Cli, stack: Stack, snapshot: str, helper_image: str) -> None:
        task = self.user(stack, helper_image, "task", labels={"com.docker.swarm.service.name": "shop_db"})
        refused = cli.error("restore", snapshot, "pg", "--yes", "--force", code=1)
        assert f"{task.name} (Swarm) would be started again" in refused
        assert "scale the service to 0" in refused
        assert health(task) == "healthy"

    def test_no_stop(self, cli: Cli, stack: Stack, snapshot: str, helper_image: str) -> None:
        db = self.user(stack, helper_image)
        since = started(db)
        refused = cli.error("restore", snapshot, "pg", "--yes", "--no-stop", code=1)
        assert f"{stack.volumes['pg']} is in use by {db.name}" in refused
        assert self.held(stack) == "old"
        cli.run("restore", snapshot, "pg", "--yes", "--no-stop", "--force")
        assert (self.held(stack), started(db)) == ("new", since)

    def test_timeout_and_configuration(self, cli: Cli, stack: Stack, snapshot: str, helper_image: str) -> None:
        self.user(stack, helper_image)
        assert "expected a duration" in cli.error("restore", snapshot, "pg", "--timeout", "5", "--yes", code=2)
        assert "healthy within 5 min 0 s" in cli.run("restore", snapshot, "pg", "--dry-run").stdout
        cli.environment["BACKUPD_RESTORE__HEALTHY_WITHIN"] = "90s"
        assert "healthy within 1 min 30 s" in cli.run("restore", snapshot, "pg", "--dry-run").stdout
        assert "healthy within 20 s" in cli.run("restore", snapshot, "pg", "--dry-run", "--timeout", "20s").stdout

    def test_a_created_volume_of_a_failed_restore_is_gone(
        self, cli: Cli, stack: Stack, snapshot: str, docker_client: Any, tmp_path: Path
    ) -> None:
        docker_client.volumes.get(stack.volumes["pg"]).remove()
        (archive,) = (tmp_path / "backups" / "archives" / "pg").glob("*.tar.zst")
        data = archive.read_bytes()
        archive.chmod(0o600)
        archive.write_bytes(data[: len(data) // 2] + bytes(8) + data[len(data) // 2 + 8 :])
        cli.error("restore", snapshot, "pg", "--yes", code=13)
        assert stack.volumes["pg"] not in {volume.name for volume in docker_client.volumes.list()}
        assert cli.run("recover").stdout == "nothing was left half-done\n"
