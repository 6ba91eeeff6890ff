"""A Docker Engine for tests and demos: the one that answers, else a private one that leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import docker
import requests
from docker.errors import DockerException

from tests.support.apt import NotInstallable, install

SUPERVISOR = Path(__file__).with_name("supervise_dockerd.py")
PACKAGES = ("docker.io", "iptables", "slirp4netns")
PROGRAMS = ("dockerd", "iptables", "ip", "unshare")


class NoEngine(Exception):  # noqa: N818  (reads as what it is)
    """No Docker Engine answers, and none can be started here; the message says why."""


@dataclass(frozen=True, slots=True)
class Host:
    """Where an engine listens; a private one was started for us alone and may be littered."""

    url: str
    private: bool


@contextlib.contextmanager
def docker_host() -> Iterator[Host]:
    """An engine for as long as the block lasts."""
    found = find_host()
    if found is not None:
        yield found
        return
    with private_host() as host:
        yield host


def find_host() -> Host | None:
    """The engine of DOCKER_HOST or of the default socket, if it answers."""
    if os.environ.get("BACKUPD_PRIVATE_ENGINE") == "1":
        return None
    url = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    return Host(url, private=os.environ.get("BACKUPD_ENGINE_IS_PRIVATE") == url) if answers(url) else None


def answers(url: str) -> bool:
    if url.startswith("unix://") and not Path(url.removeprefix("unix://")).is_socket():
        return False
    try:
        client = docker.DockerClient(base_url=url, version="auto", timeout=10)
    except (DockerException, requests.RequestException):
        return False
    with contextlib.closing(client):
        try:
            return bool(client.ping())
        except (DockerException, requests.RequestException):
            return False


@contextlib.contextmanager
def private_host() -> Iterator[Host]:
    """Start an engine in namespaces of its own (see supervise_dockerd.py); it ends with the block or this process."""
    _install()
    supervisor = subprocess.Popen(
        [sys.executable, str(SUPERVISOR)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, process_group=0
    )
    assert supervisor.stdin is not None
    assert supervisor.stdout is not None
    try:
        word, _, rest = supervisor.stdout.readline().strip().partition(" ")
        if word != "ready":
            raise NoEngine(f"a private dockerd did not start: {rest or 'no reason given'}")
        yield Host(rest, private=True)
    finally:
        supervisor.stdin.close()  # the supervisor waits for this, and sees it also when we are killed
        supervisor.wait(timeout=60)
        supervisor.stdout.close()


def _install() -> None:
    if os.geteuid() != 0:
        raise NoEngine("no Docker Engine answers, and starting a private one takes root")
    try:
        install(*PACKAGES, programs=PROGRAMS)
    except NotInstallable as exc:
        raise NoEngine(f"no Docker Engine answers, and Debian's can't be installed: {exc}") from exc
