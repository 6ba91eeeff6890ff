"""Many snapshots of services under load, each restored and examined; prints a table as Markdown.

python -m tools.soak [--rounds 20] [--only postgres] [--ways own,live] [--size 300MiB]

Every service is written to without a pause while that counts. A round takes a snapshot, restores it into a fresh
volume, starts the service on it, has its own checkers look, and counts the commits from before the snapshot that are
missing. `own` is the way that is made for the service; `live` is there to compare with: it shows what luck is worth.
The gaps without a snapshot are those of the same writer in a time as long (10 s at most), right before: they say how
busy the machine was.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import docker
from docker.errors import NotFound

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backupd.settings.types import parse_size
from tests.support.dockerd import NoEngine, docker_host
from tests.support.images import Images
from tools.soak_bench import LABELS, Bench, Round
from tools.soak_files import files
from tools.soak_postgres import postgres
from tools.soak_redis import redis_aof, redis_rdb
from tools.soak_sqlite import sqlite_journal, sqlite_wal

# With each its own way; empty: that which is found out.
SERVICES: dict[str, tuple[Callable[[Bench, str, int], Iterator[Round]], str]] = {
    "postgres": (postgres, ""),
    "redis-aof": (redis_aof, ""),
    "redis-rdb": (redis_rdb, ""),
    "sqlite-wal": (sqlite_wal, "sqlite"),
    "sqlite-journal": (sqlite_journal, "sqlite"),
    "files": (files, "auto"),
}

HEADER = """\
| service | consistency | good copies | lost commits | longest gap, median | without a snapshot | stood | backup |
| --- | --- | --- | --- | --- | --- | --- | --- |"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--size", type=parse_size, default=parse_size("300MiB"), help="how much data each service has")
    parser.add_argument("--only", choices=sorted(SERVICES), action="append")
    parser.add_argument("--ways", default="own,live", help="`own`, or values of `consistency`")
    arguments = parser.parse_args()
    bad = False
    try:
        with ExitStack() as stack:
            bench = _bench(stack, arguments.size)
            print(HEADER, flush=True)
            for way in arguments.ways.split(","):
                for name in arguments.only or SERVICES:
                    bad |= _soaked(bench, name, way, arguments.rounds)
    except NoEngine as exc:
        print(f"soak: {exc}", file=sys.stderr)
        return 1
    return int(bad)


def _soaked(bench: Bench, name: str, way: str, count: int) -> bool:
    """Whether a copy was bad that had to be good."""
    soak, own = SERVICES[name]
    rounds = []
    for found in soak(bench, own if way == "own" else way, count):
        rounds.append(found)
        said = found.trouble or f"gap {found.gap_seconds:.2f} s, lost {found.lost}"
        print(f"{name}, {way}, round {len(rounds)}: {said}", file=sys.stderr, flush=True)
    print(_row(name, own or "found out" if way == "own" else way, rounds), flush=True)
    return way != "live" and any(found.trouble or found.lost for found in rounds)


def _row(name: str, way: str, rounds: list[Round]) -> str:
    good = sum(not found.trouble and not found.lost for found in rounds)
    took = statistics.median(found.backup_seconds for found in rounds)
    cells = [
        name,
        way,
        f"{good} of {len(rounds)}",
        str(sum(found.lost for found in rounds)),
        _longest([found.gap_seconds for found in rounds]),
        _longest([found.idle_gap_seconds for found in rounds]),
        _longest([found.stood_seconds for found in rounds]),
        f"{took:.1f} s",
    ]
    return f"| {' | '.join(cells)} |"


def _longest(seconds: list[float]) -> str:
    return f"{max(seconds):.2f} s ({statistics.median(seconds):.2f} s)"


def _bench(stack: ExitStack, size: int) -> Bench:
    host = stack.enter_context(docker_host())
    client = stack.enter_context(closing(docker.DockerClient(base_url=host.url, version="auto", timeout=300)))
    stack.callback(_remove_all, client)
    images = stack.enter_context(Images(host))
    scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="backupd-soak-"))
    return Bench(client, images, host.url, Path(scratch), size >> 20)


def _remove_all(client: Any) -> None:
    wanted = {"label": [f"{key}={value}" for key, value in LABELS.items()]}
    for container in client.containers.list(all=True, filters=wanted):
        container.remove(force=True, v=True)
    for volume in client.volumes.list(filters=wanted):
        try:
            volume.remove(force=True)
        except NotFound:
            continue


if __name__ == "__main__":
    sys.exit(main())
