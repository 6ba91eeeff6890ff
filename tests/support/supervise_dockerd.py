"""Runs a private dockerd until stdin is closed, then removes every trace of it. A program, not a module.

dockerd gets a network, mount and PID namespace of its own: its bridges, firewall rules, mounts and processes vanish
with it, and it can't disturb another engine. The file system is shared, so bind mounts, volumes and pipes are seen on
both sides. slirp4netns, where installed, gives containers a way out; 10.0.2.2 is this machine's loopback. Ports that
containers publish are not reachable from outside.

Prints one line: `ready URL` or `failed REASON`.
"""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType
from typing import IO

import docker
import requests
from docker.errors import DockerException

START = """
ip link set lo up
dockerd "$@" &
dockerd=$!
trap 'kill -TERM $dockerd' TERM
while kill -0 $dockerd 2>/dev/null; do wait $dockerd; done
"""
START_SECONDS = 30
PREFIX = "backupd-engine-"


def main() -> int:
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, _leave)
    _sweep()
    base = Path(tempfile.mkdtemp(prefix=PREFIX))
    lock = _lock(base)
    socket = base / "docker.sock"
    log = base / "dockerd.log"
    processes: list[subprocess.Popen[bytes]] = []
    try:
        with log.open("wb") as output:
            processes.append(subprocess.Popen(_command(base, socket), stdout=output, stderr=output))
            if shutil.which("slirp4netns"):
                processes.append(subprocess.Popen(_network(processes[0].pid), stdout=output, stderr=output))
        if not _wait(socket, processes[0]):
            print(f"failed {' | '.join(log.read_text(errors='replace').splitlines()[-3:])}", flush=True)
            return 1
        print(f"ready unix://{socket}", flush=True)
        sys.stdin.buffer.read()
        _empty(socket)
    finally:
        _end(processes)
        shutil.rmtree(base, ignore_errors=True)
        lock.close()
        if base.exists():  # a container's last writes may race with the first attempt
            time.sleep(1)
            shutil.rmtree(base)
    return 0


def _lock(base: Path) -> IO[bytes]:
    """Held while the engine lives."""
    file = (base / "lock").open("wb")
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return file


def _sweep() -> None:
    """Remove what supervisors left that were killed; their engines died with them."""
    for base in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # alive, or somebody else's
            if time.time() - base.stat().st_mtime > START_SECONDS:  # a younger one may not have its lock yet
                _lock(base).close()
                shutil.rmtree(base)


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _command(base: Path, socket: Path) -> list[str]:
    namespaces = ["unshare", "--net", "--mount", "--propagation", "slave", "--pid", "--fork", "--kill-child=KILL"]
    dockerd = [f"--data-root={base / 'data'}", f"--exec-root={base / 'exec'}", f"--pidfile={base / 'pid'}"]
    return [
        *("setpriv", "--pdeathsig", "KILL", *namespaces, "--mount-proc", "sh", "-c", START, "dockerd"),
        *(*dockerd, "--log-level=warn", "--host", f"unix://{socket}"),
    ]


def _network(pid: int) -> list[str]:
    wait = f'until [ "$(readlink /proc/{pid}/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.01; done'
    run = f"exec setpriv --pdeathsig KILL slirp4netns --configure --mtu=65520 {pid} tap0"
    return ["sh", "-c", f"{wait}; {run}"]


def _wait(socket: Path, dockerd: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and dockerd.poll() is None:
        if socket.is_socket():
            with (
                contextlib.suppress(DockerException, requests.RequestException),
                contextlib.closing(docker.DockerClient(base_url=f"unix://{socket}", version="auto")) as client,
            ):
                return bool(client.ping())
        time.sleep(0.02)
    return False


def _empty(socket: Path) -> None:
    with (
        contextlib.suppress(DockerException, requests.RequestException),
        contextlib.closing(docker.DockerClient(base_url=f"unix://{socket}", version="auto")) as client,
    ):
        for container in client.containers.list(all=True):
            with contextlib.suppress(DockerException):
                container.remove(force=True, v=True)


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.kill()  # unshare takes PID 1 of the namespace with it, and that everything else
        process.wait()


if __name__ == "__main__":
    sys.exit(main())
