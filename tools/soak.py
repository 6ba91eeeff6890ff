"""Many snapshots of services under load, each restored and examined; prints a table as Markdown.

python -m tools.soak [--rounds 20] [--only postgres] [--ways found,live] [--scale 20]

One function for each service. It is given a way to copy (`found`: the one that backupd finds out) and says of every
round whether the restored service was good, how long writers waited, and how long the backup took. `live` is there to
compare with: it shows what luck is worth.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import docker
from docker.errors import NotFound

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.support.dockerd import NoEngine, docker_host
from tests.support.images import Images
from tests.support.postgres import BALANCED, PGDATA, Load, Server
from tools.soak_bench import LABELS, Bench, Round
from tools.soak_redis_sqlite import redis_aof, redis_rdb, sqlite_journal, sqlite_wal


def postgres(bench: Bench, consistency: str, rounds: int) -> Iterator[Round]:
    """Pgbench and a counting writer, with little room for WAL, so that it is recycled while it is copied."""
    volume = bench.volume()
    environment = {"POSTGRES_HOST_AUTH_METHOD": "trust", "POSTGRES_INITDB_ARGS": "--data-checksums"}
    command = ["postgres", "-c", "max_wal_size=64MB", "-c", "min_wal_size=32MB", "-c", "checkpoint_timeout=30s"]
    with bench.container("postgres", command, volumes=[f"{volume}:{PGDATA}"], environment=environment) as container:
        server = Server(container).wait()
        server.run("pgbench", "-U", "postgres", "-i", "-q", "-s", str(bench.scale), "postgres")
        cli = bench.cli(volume, consistency)
        with Load(server, rate=0) as load:
            for _ in range(rounds):
                committed, began = load.count(), load.now()
                start = time.monotonic()
                cli.run("backup")
                took = time.monotonic() - start
                gap = load.longest_gap(began)
                copy = bench.volume()
                cli.run("restore", "latest", "data", "--into", copy, "--yes")
                lost, trouble = _examined_postgres(bench, copy, committed)
                bench.remove_volume(copy)
                yield Round(trouble, lost, gap, took)


def _examined_postgres(bench: Bench, volume: str, committed: int) -> tuple[int, str]:
    with bench.container(
        "postgres", ["postgres"], volumes=[f"{volume}:{PGDATA}"], environment={"POSTGRES_HOST_AUTH_METHOD": "trust"}
    ) as container:
        server = Server(container)
        try:
            server.wait()
            lost = max(0, committed - int(server.sql("select count(*) from beats")))
            server.sql(BALANCED)
            server.check()
        except AssertionError as exc:
            return 0, " ".join(str(exc).split())[:100] or "unsound"
    return lost, ""


SERVICES: dict[str, Callable[[Bench, str, int], Iterator[Round]]] = {
    "postgres": postgres,
    "redis-rdb": redis_rdb,
    "redis-aof": redis_aof,
    "sqlite-wal": sqlite_wal,
    "sqlite-journal": sqlite_journal,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--scale", type=int, default=20, help="how much data, about 15 MiB each")
    parser.add_argument("--only", choices=sorted(SERVICES), action="append")
    parser.add_argument(
        "--ways", default="found,live", help="values of `consistency`; found: none, so that it is found out"
    )
    arguments = parser.parse_args()
    bad = False
    try:
        with ExitStack() as stack:
            bench = _bench(stack, arguments.scale)
            print("| service | consistency | good copies | lost commits | longest gap between commits | backup |")
            print("| --- | --- | --- | --- | --- | --- |", flush=True)
            for name in arguments.only or SERVICES:
                for way in arguments.ways.split(","):
                    rounds = list(SERVICES[name](bench, way, arguments.rounds))
                    print(_row(name, way, rounds), flush=True)
                    for number, found in enumerate(rounds, 1):
                        if found.trouble:
                            print(f"{name}, {way}, round {number}: {found.trouble}", file=sys.stderr)
                    bad = bad or (way != "live" and any(found.trouble or found.lost for found in rounds))
    except NoEngine as exc:
        print(f"soak: {exc}", file=sys.stderr)
        return 1
    return int(bad)


def _row(name: str, way: str, rounds: list[Round]) -> str:
    good = sum(not found.trouble and not found.lost for found in rounds)
    lost = sum(found.lost for found in rounds)
    gaps = [found.gap_seconds for found in rounds]
    took = statistics.median(found.backup_seconds for found in rounds)
    gap = f"{max(gaps):.2f} s (median {statistics.median(gaps):.2f} s)"
    return f"| {name} | `{way}` | {good} of {len(rounds)} | {lost} | {gap} | {took:.1f} s |"


def _bench(stack: ExitStack, scale: int) -> Bench:
    host = stack.enter_context(docker_host())
    client = stack.enter_context(closing(docker.DockerClient(base_url=host.url, version="auto", timeout=300)))
    stack.callback(_remove_all, client)
    images = stack.enter_context(Images(host))
    scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="backupd-soak-"))
    return Bench(client, images, host.url, Path(scratch), scale)


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
