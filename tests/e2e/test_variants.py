"""The overlay behind the socket proxy, and without any socket."""

from __future__ import annotations

from collections.abc import Callable

import docker
import pytest

from tests.e2e.test_stack import check, damage, fill
from tests.support.compose import Compose

pytestmark = [pytest.mark.docker, pytest.mark.s3, pytest.mark.slow, pytest.mark.timeout(1800)]


def mounts(client: docker.DockerClient) -> set[str]:
    container = client.containers.get("contravento-backup-prod")
    return {
        mount["Destination"]
        for mount in container.attrs["Mounts"]
        if not mount["Destination"].startswith("/run/secrets")
    }


def test_behind_the_socket_proxy(make_stack: Callable[..., Compose], e2e_client: docker.DockerClient) -> None:
    stack = make_stack("docker-compose.backup-proxy.yml")
    assert mounts(e2e_client) == {"/etc/backupd", "/backups", "/var/lib/backupd", "/run/backupd"}
    fill(stack)
    taken = stack.json("backup", "nightly")["snapshot"]["id"]
    damage(stack)
    stack.backupd("restore", taken, "--yes")
    stack.run("up", "-d", "--wait", "--wait-timeout", "300")
    check(stack)
    break_out = (
        "import docker; c = docker.from_env();c.containers.run('alpine', 'id', privileged=True, volumes=['/:/host'])"
    )
    program = ["env", "DOCKER_HOST=unix:///run/backupd/docker.sock", "python3", "-c", break_out]
    stack.run("exec", "-T", "backupd", *program, code=1)
    log = stack.run("logs", "backupd-socket-proxy")
    assert "refused POST /containers/create" in log
    stack.run("down", "-v", "-t", "5")


def test_without_a_socket(make_stack: Callable[..., Compose], e2e_client: docker.DockerClient) -> None:
    stack = make_stack("docker-compose.backup-mounted.yml")
    volumes = {f"/volumes/{name}" for name in ("postgres", "redis", "storage", "pgadmin")}
    assert mounts(e2e_client) == {"/etc/backupd", "/backups", "/var/lib/backupd", *volumes}
    fill(stack)
    taken = stack.json("backup", "six-hourly", "--volume", "storage")["snapshot"]["id"]
    stack.run("exec", "-T", "backend", "rm", "-rf", "/app/storage/photos")
    stack.backupd("restore", taken, "storage", "--yes")
    check(stack)
    stack.run("down", "-v", "-t", "5")
