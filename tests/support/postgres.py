"""PostgreSQL in containers: servers with data in volumes, copies of them taken by a strategy, servers on the copies."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from docker.errors import APIError

from backupd.engine import DockerEngine
from backupd.model import TarReport, VolumeSpec
from backupd.runtime import Runtime
from backupd.services import Outcome, Source, Strategy
from tests.support.runtime import make_runtime

PGDATA = "/var/lib/postgresql/data"
TRUST = {"POSTGRES_HOST_AUTH_METHOD": "trust"}
PIECE = 1 << 20

# What pgbench's transactions keep equal, or an error.
BALANCED = """
do $$ begin
    if (select sum(abalance) from pgbench_accounts) <> (select sum(delta) from pgbench_history)
        or (select sum(bbalance) from pgbench_branches) <> (select sum(delta) from pgbench_history)
        or (select sum(tbalance) from pgbench_tellers) <> (select sum(delta) from pgbench_history)
    then raise 'the balances differ'; end if;
end $$
"""

Make = Callable[[VolumeSpec, Any, Any, Runtime], Strategy]


@dataclass
class Server:
    """A container that runs PostgreSQL."""

    container: Any
    user: str = "postgres"

    @property
    def name(self) -> str:
        return str(self.container.name)

    def wait(self) -> Server:
        for _ in range(600):
            self.container.reload()
            if self.container.status != "running":
                break
            if self.container.exec_run(["pg_isready", "-q", "-h", "127.0.0.1"]).exit_code == 0:
                return self
            time.sleep(0.1)
        raise AssertionError(f"{self.name} did not become ready: {self.container.logs(tail=20).decode()}")

    def run(self, *command: str, user: str = "999") -> str:
        code, output = self.container.exec_run(list(command), user=user)
        assert code == 0, output.decode()
        return str(output.decode().strip())

    def sql(self, *queries: str, database: str = "postgres") -> str:
        """Through the socket, where the server trusts; one statement after the other."""
        commands = [argument for query in queries for argument in ("-c", query)]
        return self.run("psql", "-X", "-q", "-U", self.user, "-d", database, "-At", "-v", "ON_ERROR_STOP=1", *commands)

    def check(self) -> None:
        """All relations of all databases are sound."""
        self.sql("create extension if not exists amcheck")
        self.run("pg_amcheck", "-U", self.user, "--all", "--install-missing", "--heapallindexed")

    def check_fails(self, table: str) -> None:
        """A table is not sound."""
        code, _ = self.container.exec_run(
            ["pg_amcheck", "-U", self.user, "-d", "postgres", "--install-missing", "-t", table], user="999"
        )
        assert code != 0

    def slots(self) -> str:
        return self.sql("select string_agg(slot_name, ',') from pg_replication_slots")


@dataclass
class Copied:
    """What a strategy came to."""

    outcome: Outcome
    report: TarReport
    members: list[str]
    notes: list[str]
    volume: str


@dataclass
class Lab:
    """Makes servers and copies; all that it makes is removed by the fixtures that it is made of."""

    engine: DockerEngine
    image: str
    make_volume: Callable[..., str]
    run_container: Callable[..., Any]
    volume_root: Callable[[str], Path]
    state: Path
    make: Make
    client: Any
    template: Path
    environment: Mapping[str, str] = field(default_factory=lambda: dict(TRUST))

    def volume(self) -> str:
        return self.make_volume()

    def server(
        self,
        volume: str,
        *arguments: str,
        mount: str = PGDATA,
        environment: Mapping[str, str] | None = None,
        volumes: Sequence[str] = (),
        ready: bool = True,
        **rest: Any,
    ) -> Server:
        """A server with its data in the volume; `arguments` are settings, `-c name=value`.

        Where nothing special is asked for, an empty volume gets the template's data: initdb takes long.
        """
        root = self.volume_root(volume)
        if environment is None and mount == PGDATA and not any(root.iterdir()):
            subprocess.run(["cp", "-a", f"{self.template}/.", str(root)], check=True)
            shutil.copystat(self.template, root)
            os.chown(root, 999, 999)
        variables = dict(self.environment if environment is None else environment)
        image = rest.pop("image", self.image)
        container = self.run_container(
            image,
            ["postgres", *(part for argument in ("fsync=off", *arguments) for part in ("-c", argument))],
            volumes=[f"{volume}:{mount}", *volumes],
            environment=variables,
            **rest,
        )
        server = Server(container, variables.get("POSTGRES_USER", "postgres"))
        return server.wait() if ready else server

    def runtime(self) -> Runtime:
        return make_runtime(self.state, engine=self.engine)

    def strategy(self, volume: str, runtime: Runtime | None = None, **spec: Any) -> tuple[Strategy, Source]:
        wanted = VolumeSpec("db", volume=volume, **spec)
        found = self.engine.find(wanted)
        users = self.engine.services.users(found)
        return self.make(wanted, found, users, runtime or self.runtime()), Source(wanted, found, first=True)

    def copy(self, volume: str, into: str | None = None, piece: int = PIECE, **spec: Any) -> Copied:
        """Copy the volume by the strategy into a new one, pass after pass; each replaces what came before."""
        runtime = self.runtime()
        strategy, source = self.strategy(volume, runtime, **spec)
        target_name = into or self.volume()
        target = self.engine.find(VolumeSpec("copy", volume=target_name))
        report: TarReport | None = None
        buffer = memoryview(bytearray(piece))
        with strategy.read(source) as reading:
            while (stream := reading.next(report)) is not None:
                with stream, self.engine.tar_in(target) as writer:
                    while count := stream.readinto(buffer):
                        writer.write(buffer[:count])
                    report = stream.finish()
                    writer.finish()
            outcome = reading.outcome()
        assert report is not None
        root = self.volume_root(target_name)
        members = sorted(str(path.relative_to(root)) for path in root.rglob("*"))
        return Copied(outcome, report, members, list(runtime.progress.notes), target_name)  # type: ignore[attr-defined]

    def containers(self, volume: str) -> list[Any]:
        """The containers that use a volume."""
        return list(self.client.containers.list(all=True, filters={"volume": volume}))


class Load:
    """Writers: pgbench's own, and one that commits a counted row at a time; both `rate` times a second, 0: at once."""

    def __init__(self, server: Server, rate: int = 200) -> None:
        self._server = server
        self._rate = rate

    def __enter__(self) -> Self:
        self._server.sql("create table beats (id bigserial primary key, at timestamptz default clock_timestamp())")
        self._server.run("sh", "-c", "echo 'insert into beats default values;' >/tmp/beat.sql")
        limit = ["-R", str(self._rate)] if self._rate else []
        forever = ["-U", "postgres", "-n", "-T", "100000", *limit, "postgres"]
        for command in (["-c", "4"], ["-c", "1", "-f", "/tmp/beat.sql"]):
            self._server.container.exec_run(["pgbench", *command, *forever], user="999", detach=True)
        wait_until(lambda: self.count() > 100)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._server.sql("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'pgbench'")

    def count(self) -> int:
        return int(self._server.sql("select count(*) from beats"))

    def now(self) -> str:
        return self._server.sql("select clock_timestamp()")

    def longest_gap(self, since: str) -> float:
        """Seconds between two commits of the counting writer since then."""
        gaps = f"select at - lag(at) over (order by id) as gap from beats where at >= '{since}'"
        return float(self._server.sql(f"select extract(epoch from max(gap)) from ({gaps}) as gaps"))


class Inspector:
    """All that an inspection of helper containers shows."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.helpers: set[str] = set()
        self.text = ""

    def look(self) -> None:
        for container in self._client.containers.list(all=True, filters={"label": ["backupd.job"]}):
            self.helpers.add(container.name)
            self.text += str(container.attrs)
            with contextlib.suppress(APIError):  # it has ended meanwhile
                self.text += str(container.top())


def wait_until(true: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise AssertionError("it did not come true in time")
        time.sleep(0.1)
