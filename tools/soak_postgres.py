"""A soak of PostgreSQL: pgbench and a counting writer, with little room for WAL, so that it is recycled meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tests.support.postgres import BALANCED, PGDATA, TRUST, Load, Server
from tools.soak_bench import Bench, Round

_MEBIBYTES_OF_A_SCALE = 15
_LITTLE_WAL = ("max_wal_size=64MB", "min_wal_size=32MB", "checkpoint_timeout=30s")


def postgres(bench: Bench, consistency: str, count: int) -> Iterator[Round]:
    volume = bench.volume()
    environment = TRUST | {"POSTGRES_INITDB_ARGS": "--data-checksums"}
    with bench.containers() as run:
        settings = [part for setting in _LITTLE_WAL for part in ("-c", setting)]
        command = ["postgres", *settings]
        place = [f"{volume}:{PGDATA}"]
        server = Server(run(bench.images.tag("postgres"), command, volumes=place, environment=environment)).wait()
        scale = max(1, bench.mebibytes // _MEBIBYTES_OF_A_SCALE)
        server.run("pgbench", "-U", "postgres", "-i", "-q", "-s", str(scale), "postgres")
        with Load(server, rate=0) as load:
            yield from bench.rounds(_Postgres(bench, server, load), bench.cli(volume, consistency), count)


@dataclass(frozen=True)
class _Postgres:
    bench: Bench
    server: Server
    load: Load

    def press(self) -> None:
        """Pgbench never rests."""

    def disturb(self, number: int) -> None:
        """Pgbench keeps it busy enough."""

    def acknowledged(self) -> int:
        return self.load.count()

    def longest_gap(self, begin: float, end: float) -> float:
        found = self.server.sql(
            "select extract(epoch from max(at - before)) from"
            " (select at, lag(at) over (order by at) as before from beats) as gaps"
            f" where at >= to_timestamp({begin}) and before <= to_timestamp({end})"
        )
        return float(found or end - begin)

    def examine(self, copy: str, acknowledged: int) -> int:
        place = [f"{copy}:{PGDATA}"]
        with self.bench.containers() as run:
            server = Server(run(self.bench.images.tag("postgres"), ["postgres"], volumes=place, environment=TRUST))
            server.wait()
            server.sql(BALANCED)
            server.check()
            server.sql("insert into beats default values")
            return max(0, acknowledged + 1 - int(server.sql("select count(*) from beats")))
