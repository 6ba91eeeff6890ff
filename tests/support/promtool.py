"""Prometheus and its promtool, out of Debian's package; the package is not installed, which would start a server."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.support.apt import NotInstallable, apt_lock, update
from tests.support.stacks import wait_until

_BUILT = Path(__file__).resolve().parents[2] / ".build"


def promtool() -> Path:
    """The program; NotInstallable where there is none."""
    return _program("promtool")


@dataclass(frozen=True)
class Prometheus:
    """A running server."""

    client: httpx.Client

    def ask(self, path: str, **parameters: str) -> Any:
        """The data of an answer of its API; a query that it does not understand fails."""
        answer = self.client.get(f"/api/v1/{path}", params=parameters)
        document = answer.json()
        assert document["status"] == "success", (parameters, document)
        return document["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series of an instant query."""
        found = self.ask("query", query=expression)
        assert found["resultType"] == "vector", expression
        return list(found["result"])


@contextmanager
def prometheus(directory: Path, config: dict[str, Any]) -> Iterator[Prometheus]:
    """A server with that configuration, once it answers. NotInstallable where there is none."""
    program = _program("prometheus")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    (directory / "prometheus.yaml").write_text(yaml.safe_dump(config))
    command = [str(program), f"--config.file={directory / 'prometheus.yaml'}", f"--web.listen-address={address}"]
    log = directory / "prometheus.log"
    with log.open("w") as said:
        process = subprocess.Popen(
            [*command, f"--storage.tsdb.path={directory / 'data'}"], cwd=directory, stdout=said, stderr=said
        )
    try:
        with httpx.Client(base_url=f"http://{address}", trust_env=False, timeout=60) as client:

            def ready() -> bool:
                assert process.poll() is None, log.read_text()
                try:
                    return client.get("/-/ready").status_code == httpx.codes.OK
                except httpx.TransportError:
                    return False

            wait_until(ready)
            yield Prometheus(client)
    finally:
        process.kill()
        process.wait()


def _program(name: str) -> Path:
    installed = shutil.which(name)
    if installed:
        return Path(installed)
    built = _BUILT / name
    if not built.exists():
        if os.geteuid() != 0 or shutil.which("apt-get") is None:
            raise NotInstallable(f"{name} is fetched on Debian and Ubuntu only, by root")
        with apt_lock():
            if not built.exists():
                _fetch(built)
    return built


def _fetch(built: Path) -> None:
    update()
    with tempfile.TemporaryDirectory() as scratch:
        for command in (
            ["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", "prometheus"],
            ["sh", "-c", f"dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x ./usr/bin/{built.name}"],
        ):
            done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise NotInstallable(f"`{command[0]}`: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
        built.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(Path(scratch, "usr/bin", built.name), built.with_suffix(".new"))
        built.with_suffix(".new").rename(built)
