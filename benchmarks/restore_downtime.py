"""How long a PostgreSQL service is away while its volume is restored, against `docker restart` of the same container.

    python -m benchmarks.restore_downtime [--size 2GiB] [--rounds 3]

Needs a Docker Engine (or starts a private one) and some four times the size on its disk and under `.build/`. The time
is from the stop until the container's health check passes, asked every 0.1 s in both cases.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker
import yaml

from backupd.settings.types import parse_size
from benchmarks.contenders import ROOT
from tests.support.dockerd import Host, docker_host
from tests.support.images import Images

ALLOWED_SECONDS = 3.0
PGDATA = "/var/lib/postgresql/data"
ROW = 1000
"""Rows hold some 1,000 bytes of text that compresses to half its size."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=parse_size, default=parse_size("2GiB"), help="of the database")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    cache = ROOT / ".build" / "bench"
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="downtime-", dir=cache) as work, docker_host() as host:
        client = docker.DockerClient(base_url=host.url, version="auto", timeout=300)
        with Images(host) as images, database(client, images.tag("postgres")) as container:
            fill(container, arguments.size)
            size = int(sql(container, "select pg_database_size('postgres')"))
            restore = Restore(Path(work), host, images.tag("helper"), container)
            container.stop(timeout=300)
            restore.backup()
            container.start()
            wait_healthy(container)
            found = measure(container, restore, arguments.rounds)
    return report(found, size)


@contextmanager
def database(client: Any, image: str) -> Iterator[Any]:
    name = f"backupd-bench-{uuid.uuid4().hex[:8]}"
    volume = client.volumes.create(name)
    container = client.containers.create(
        image,
        name=name,
        environment={"POSTGRES_HOST_AUTH_METHOD": "trust"},
        volumes=[f"{name}:{PGDATA}"],
        shm_size="256m",
    )
    try:
        container.start()
        wait_healthy(container)
        yield container
    finally:
        container.remove(force=True, v=True)
        volume.remove(force=True)


def wait_healthy(container: Any) -> None:
    while True:
        container.reload()
        if container.attrs["State"]["Health"]["Status"] == "healthy":
            return
        if container.status != "running":
            raise SystemExit(f"PostgreSQL ended: {container.logs(tail=5).decode()}")
        time.sleep(0.1)


def fill(container: Any, size: int) -> None:
    sql(container, "alter system set max_wal_size = '512MB'")
    sql(container, "select pg_reload_conf()")
    text = f"repeat(md5(i::text), {ROW // 32})"
    sql(container, f"create table filler as select i, {text} as body from generate_series(1, {size // (ROW + 50)}) i")
    sql(container, "checkpoint")


def sql(container: Any, query: str) -> str:
    code, said = container.exec_run(["psql", "-U", "postgres", "-h", "127.0.0.1", "-Atc", query])
    if code != 0:
        raise SystemExit(said.decode())
    return str(said.decode().strip())


class Restore:
    """The command line, with one volume and one store."""

    def __init__(self, work: Path, host: Host, helper_image: str, container: Any) -> None:
        config = {
            "state_dir": str(work / "state"),
            "docker": {"host": host.url, "helper_image": helper_image},
            "stores": {"local": {"type": "local", "path": str(work / "store")}},
            "volumes": {"pg": {"volume": container.name}},
        }
        self._config = work / "backupd.yaml"
        self._config.write_text(yaml.safe_dump(config))

    def backup(self) -> None:
        self._run("backup")

    def run(self) -> dict[str, Any]:
        found: dict[str, Any] = self._run("restore", "latest", "pg", "--yes", "--no-safety-snapshot")
        return found

    def _run(self, *arguments: str) -> Any:
        command = [sys.executable, "-m", "backupd", *arguments, "--json", "--config", str(self._config)]
        return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=ROOT).stdout)


def measure(container: Any, restore: Restore, rounds: int) -> dict[str, list[float]]:
    """Both in turn, so that both meet the same machine."""
    found: dict[str, list[float]] = {"restart": [], "downtime": [], "whole restore": []}
    for number in range(rounds):
        sql(container, f"create table round_{number} as select 1")
        sql(container, "checkpoint")
        began = time.monotonic()
        container.restart(timeout=60)
        wait_healthy(container)
        found["restart"].append(time.monotonic() - began)
        began = time.monotonic()
        done = restore.run()
        found["whole restore"].append(time.monotonic() - began)
        found["downtime"].append(done["downtime_seconds"])
        assert sql(container, "select count(*) from pg_tables where tablename like 'round_%'") == "0", "not restored"
        line = ", ".join(f"{name} {values[-1]:.2f} s" for name, values in found.items())
        print(f"round {number + 1}: {line}", flush=True)
    return found


def report(found: dict[str, list[float]], size: int) -> int:
    middle = {name: statistics.median(values) for name, values in found.items()}
    more = middle["downtime"] - middle["restart"]
    rounds, load = len(found["restart"]), os.getloadavg()[0]
    print(f"\nPostgreSQL, {size / 1024**3:.2f} GiB, median of {rounds} rounds, load {load:.1f}:")
    for name, seconds in middle.items():
        print(f"  {name:14} {seconds:6.2f} s")
    verdict = "met" if more <= ALLOWED_SECONDS else "MISSED"
    print(f"  {more:+.2f} s against docker restart; the target of at most +{ALLOWED_SECONDS:g} s is {verdict}")
    return 0 if more <= ALLOWED_SECONDS else 1


if __name__ == "__main__":
    sys.exit(main())
