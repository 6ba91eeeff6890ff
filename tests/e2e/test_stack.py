"""The overlay on a stack like contravento, by the commands that docs/operations.md gives."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import docker
import pytest

from backupd.model import PROJECT_LABEL
from tests.support import seaweedfs
from tests.support.compose import Compose
from tests.support.documents import blocks
from tests.support.stacks import wait_until

OPERATIONS = "docs/operations.md"

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
    compose.psql("drop table if exists trips")
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


def is_new(stack: Compose) -> dict[str, bool]:
    """Of each volume, whether it holds the snapshot's data; it fails on what is neither these nor the damaged ones."""
    trips = stack.psql("select count(*) from pg_class where relname = 'trips'")
    if trips == "1":
        assert stack.psql("select count(*), max(name) from trips") == "5000|trip 999"
    photos = stack.run("exec", "-T", "backend", "sh", "-c", "find /app/storage -mindepth 1 | sort").split()
    assert photos in ([], ["/app/storage/photos", "/app/storage/photos/1.jpg"])
    assert stack.redis("get", "session") in {"", "alive"}
    return {"postgres": trips == "1", "storage": bool(photos), "redis": stack.redis("get", "session") == "alive"}


@pytest.mark.parametrize("moment", ["services are stopped", "volumes are exchanged"])
def test_killed_in_the_middle_of_a_restore(stack: Compose, e2e_client: docker.DockerClient, moment: str) -> None:
    """The container dies at once, and so does what it runs; it comes up by its policy and puts everything right."""
    taken = stack.json("backup", "nightly")["snapshot"]["id"]
    damage(stack)
    container = e2e_client.containers.get("contravento-backup-prod")
    services = [e2e_client.containers.get(f"contravento-{name}-prod") for name in ("db", "redis", "api")]
    begun, restarts = container.attrs["State"]["StartedAt"], container.attrs["RestartCount"]
    (init,) = (pid for pid in processes(str(container.id)) if is_init(pid))
    with ThreadPoolExecutor(1) as pool, closing(e2e_client.events(decode=True)) as events:
        words = ("exec", "-T", "backupd", "backupd", "restore", taken, "--yes", "--no-safety-snapshot")
        restore = pool.submit(stack.run, *words, code=None)
        helpers = moments(events, {str(service.name) for service in services}, moment)
        os.kill(init, signal.SIGKILL)
        for helper in helpers:  # halfway through its renames; it may have got to the end of them
            for pid in processes(helper):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        restore.result(timeout=300)

    def recovered() -> bool:
        for one in (container, *services):
            one.reload()
        up = all(one.attrs["State"]["Running"] for one in (container, *services))
        return up and "interrupted restore of snapshot" in stack.run("logs", "--since", begun, "backupd")

    wait_until(recovered, 600)
    assert container.attrs["RestartCount"] == restarts + 1
    stack.run("up", "-d", "--wait", "--wait-timeout", "300", "postgres", "redis", "backend")
    found = is_new(stack)
    assert set(found.values()) in ({True}, {False}), found
    left = "find /app/storage /data /var/lib/postgresql/data -maxdepth 1 -name '.backupd-*' 2>/dev/null || :"
    for service in ("backend", "redis", "postgres"):
        assert stack.run("exec", "-T", service, "sh", "-c", left) == ""
    assert e2e_client.containers.list(all=True, filters={"label": "backupd.job"}) == []
    assert stack.backupd("recover") == "nothing was left half-done\n"
    stack.backupd("restore", taken, "--yes", "--no-safety-snapshot")
    stack.run("up", "-d", "--wait", "--wait-timeout", "300")
    check(stack)


def moments(events: Iterator[dict[str, Any]], services: set[str], moment: str) -> list[str]:
    """Return at that moment of a restore, with the ids of the helpers that run then."""
    stopped: set[str] = set()
    for event in events:
        facts = event.get("Actor", {}).get("Attributes", {})
        if event.get("Type") != "container" or event["Action"] not in {"start", "die"}:
            continue
        if event["Action"] == "die" and facts["name"] in services:
            stopped.add(facts["name"])
            if moment == "services are stopped":
                return []
        if event["Action"] == "start" and "backupd.job" in facts and stopped == services:
            return [event["id"]]
    raise AssertionError("no more events")


def processes(container: str) -> list[int]:
    """The processes of a container, as this machine counts them: the engine may be in a namespace of its own."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cgroup"):
        with contextlib.suppress(OSError):
            found += [int(path.parent.name)] if container in path.read_text() else []
    return found


def is_init(pid: int) -> bool:
    """Whether it is process 1 of its namespace."""
    status = Path(f"/proc/{pid}/status").read_text()
    return status.partition("NSpid:")[2].splitlines()[0].split()[-1] == "1"


def test_archives_are_closed_to_others(stack: Compose) -> None:
    """Directories and files of the store are their owner's alone; of the state, the directory that holds it all."""
    assert stack.run("exec", "-T", "backupd", "find", "/backups", "-perm", "/077") == ""
    assert stack.run("exec", "-T", "backupd", "stat", "-c", "%a", "/var/lib/backupd").strip() == "700"
    assert stack.run("exec", "-T", "backupd", "find", "/var/lib/backupd", "-name", "*.key", "-perm", "/077") == ""


def test_new_credentials_of_the_bucket(stack: Compose) -> None:
    """First wrong ones, which the doctor finds; then those of another identity."""
    (recreate,) = blocks(OPERATIONS, "S3")
    up, _doctor = recreate.splitlines()

    def rotate(key: str, secret: str) -> list[dict[str, Any]]:
        for name, text in (("backupd_access_key_id_file", key), ("backupd_secret_access_key_file", secret)):
            (stack.directory / name).unlink()
            (stack.directory / name).write_text(text)
            (stack.directory / name).chmod(0o444)
        stack.as_written(up)
        findings = json.loads(stack.backupd("doctor", "--json", code=None))["findings"]
        return [one for one in findings if one["level"] == "error" and "offsite" in one["subject"]]

    assert rotate(seaweedfs.ACCESS_KEY, "wrong")
    assert rotate(seaweedfs.LIMITED_ACCESS_KEY, seaweedfs.LIMITED_SECRET_KEY) == []
    taken = stack.json("backup", "nightly")["snapshot"]["id"]
    assert taken[:8] in stack.backupd("list", "--store", "offsite")


def taken_whole(stack: Compose) -> str:
    """A snapshot by hand. The daemon has just started, and may be at a run that it had missed."""
    taken: list[str] = []

    def is_whole() -> bool:
        snapshot = json.loads(stack.backupd("backup", "nightly", "--json", code=None)).get("snapshot")
        taken.append(snapshot["id"] if snapshot else "")
        return bool(snapshot) and all(failure["optional"] for failure in snapshot["failures"])

    wait_until(is_whole, 120)
    return taken[-1]


def test_with_a_key_at_3_am_and_on_a_new_host(stack: Compose, e2e_client: docker.DockerClient) -> None:
    """Encrypted from now on. The new host calls the project by another name, and has the bucket and the key."""
    public = stack.as_written("backupd keygen -o backupd.key").strip()
    stack.configure(TEST_RECIPIENTS=public)
    stack.run("up", "-d", "backupd")
    taken = taken_whole(stack)
    damage(stack)
    _, at_3_am = blocks(OPERATIONS, "Restore at 3 a.m.")
    stack.as_written(at_3_am)
    stack.run("up", "-d", "--wait", "--wait-timeout", "300")
    check(stack)
    hanging_up = blocks(OPERATIONS, "Encryption")[1]
    stack.as_written(hanging_up)
    wait_until(lambda: "told to read the configuration anew" in stack.run("logs", "backupd"), 60)

    stack.run("down", "-v", "-t", "5")
    stack.project += "-moved"
    looking, with_key = blocks(OPERATIONS, "Move to a new host")
    assert taken[:8] in stack.as_written(looking.splitlines()[0])
    stack.as_written(with_key)
    stack.run("up", "-d", "--wait", "--wait-timeout", "600")
    check(stack)
    names = {volume.name for volume in e2e_client.volumes.list(filters={"label": f"{PROJECT_LABEL}={stack.project}"})}
    assert {f"{stack.project}_{name}" for name in ("postgres_data", "redis_data", "backend_storage")} <= names
