"""The image that ships: what is in it, and that it runs with next to no rights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import docker
import pytest

HARDENED = {
    "read_only": True,
    "tmpfs": {"/tmp": ""},
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
    "network_mode": "none",
}


@pytest.fixture
def said(backupd_image: str, run_container: Callable[..., Any]) -> Callable[..., str]:
    """What a command in a container of the image says; it must succeed."""

    def run(*command: str, **options: Any) -> str:
        container = run_container(backupd_image, list(command), **HARDENED, **options)
        code = container.wait(timeout=120)["StatusCode"]
        text: str = container.logs().decode()
        assert code == 0, text
        return text

    return run


def test_what_it_says_of_itself(backupd_image: str, docker_client: docker.DockerClient) -> None:
    image = docker_client.images.get(backupd_image)
    config = image.attrs["Config"]
    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] == ["tini", "--", "backupd"]
    assert config["Cmd"] == ["run"]
    assert config["Healthcheck"]["Test"] == ["CMD", "backupd", "healthcheck"]
    assert config.get("Volumes") is None  # each helper would get one
    assert config["Labels"]["org.opencontainers.image.title"] == "backupd"
    assert image.attrs["Size"] < 230e6


def test_hardened(said: Callable[..., str]) -> None:
    """As compose runs it: nobody, no capabilities, nothing writable but /tmp."""
    assert "restore" in said("--help")
    script = """
    set -e
    [ "$(id -u):$(id -g)" = 10001:10001 ]
    tar --version | head -1
    age --version
    for tool in tini zstd timeout cat mkdir python3; do command -v "$tool"; done
    python3 -c 'import sqlite3, ssl; print(sqlite3.sqlite_version)'
    TZ=Europe/Madrid date +%Z
    touch /tmp/x && ! touch /x 2>/dev/null
    for directory in /backups /var/lib/backupd /run/backupd; do stat -c '%a %u %n' "$directory"; done
    grep -E '^(CapEff|CapBnd|NoNewPrivs)' /proc/self/status
    """
    text = said("-c", script, entrypoint="sh")
    assert "tar (GNU tar)" in text
    assert "\nCE" in text
    for directory in ("/backups", "/var/lib/backupd", "/run/backupd"):
        assert f"700 10001 {directory}\n" in text
    for line in ("CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1"):
        assert f"{line}\n" in text


def test_everything_can_be_imported(said: Callable[..., str]) -> None:
    """Also what is imported when it is first used; and S3 without the descriptions that were left out."""
    program = """
import importlib, pkgutil, backupd, boto3
for module in pkgutil.walk_packages(backupd.__path__, "backupd."):
    if not module.name.endswith((".recover", ".__main__", "sqlite_program")) or module.name == "backupd.recover":
        importlib.import_module(module.name)
for service in ("s3", "sts", "sso", "sso-oidc"):
    boto3.client(service, region_name="eu-west-1", aws_access_key_id="a", aws_secret_access_key="b")
print("all of it")
"""
    assert "all of it" in said("-c", program, entrypoint="/opt/backupd/bin/python3")
