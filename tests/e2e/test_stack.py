"""The overlay on a stack like contravento, by the commands that docs/operations.md gives."""

from __future__ import annotations

import json
from collections.abc import Callable

import docker
import pytest

from tests.support.compose import Compose

pytestmark = [pytest.mark.docker, pytest.mark.s3, pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def stack(make_stack: Callable[..., Compose]) -> Compose:
    compose = make_stack()
    fill(compose)
    return compose


def fill(compose: Compose) -> None:
    compose.psql("create table trips as select n as id, 'trip ' || n as name from generate_series(1, 5000) n")
    compose.redis("set", "session", "alive")
    compose.run(
        "exec", "-T", "backend", "sh", "-c", "mkdir -p /app/storage/photos; echo photo >/app/storage/photos/1.jpg"
    )


def damage(compose: Compose) -> None:
    compose.psql("drop table trips")
    compose.redis("del", "session")
    compose.run("exec", "-T", "backend", "rm", "-rf", "/app/storage/photos")


def check(compose: Compose) -> None:
    assert compose.psql("select count(*), max(name) from trips") == "5000|trip 999"
    assert compose.redis("get", "session") == "alive"
    assert compose.run("exec", "-T", "backend", "cat", "/app/storage/photos/1.jpg") == "photo\n"


def test_the_container_has_next_to_no_rights(stack: Compose, e2e_client: docker.DockerClient) -> None:
    container = e2e_client.containers.get("contravento-backup-prod")
    config, host = container.attrs["Config"], container.attrs["HostConfig"]
    assert config["User"] == "10001:10001"
    assert host["ReadonlyRootfs"] is True
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert host["RestartPolicy"]["Name"] == "unless-stopped"
    assert host["Memory"] == 1 << 30
    assert host["NanoCpus"] == 10**9
    assert host["LogConfig"] == {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "5"}}
    assert not any("test-secret-key" in entry for entry in config["Env"])
    assert "test-secret-key" not in json.dumps(stack.json("config", "show"))
    modes = stack.run("exec", "-T", "backupd", "stat", "-c", "%a %u", "/backups", "/var/lib/backupd").split()
    assert modes == ["700", "10001", "700", "10001"]
    assert stack.run("exec", "-T", "backupd", "sh", "-c", "touch /x 2>/dev/null || echo no").strip() == "no"


def test_damaged_volumes_come_back(stack: Compose) -> None:
    taken = stack.json("backup", "nightly")["snapshot"]
    kinds = {archive["volume"]: archive["consistency"] for archive in taken["archives"]}
    assert kinds["postgres"] == "postgres"
    assert kinds["redis"] == "redis"
    for store in ("local", "offsite"):
        assert taken["id"][:8] in stack.backupd("list", "--store", store)
    damage(stack)
    stack.backupd("restore", taken["id"], "--yes")
    stack.run("up", "-d", "--wait", "--wait-timeout", "300")
    check(stack)
    assert stack.json("verify", "--read-data")["problems"] == []


def test_archives_are_closed_to_others(stack: Compose) -> None:
    """Directories and files of the store are their owner's alone; of the state, the directory that holds it all."""
    assert stack.run("exec", "-T", "backupd", "find", "/backups", "-perm", "/077") == ""
    assert stack.run("exec", "-T", "backupd", "stat", "-c", "%a", "/var/lib/backupd").strip() == "700"
    assert stack.run("exec", "-T", "backupd", "find", "/var/lib/backupd", "-name", "*.key", "-perm", "/077") == ""


def test_a_new_host_with_nothing_but_the_bucket(stack: Compose) -> None:
    stack.run("down", "-v", "-t", "5")
    stack.run("up", "-d", "--wait", "--wait-timeout", "600")
    assert stack.run("exec", "-T", "backend", "ls", "/app/storage") == ""
    stack.backupd("restore", "latest", "--store", "offsite", "--yes")
    stack.run("up", "-d", "--wait", "--wait-timeout", "300")
    check(stack)
