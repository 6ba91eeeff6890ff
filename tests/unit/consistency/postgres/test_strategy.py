"""Which way a volume of PostgreSQL is read, and how its copy is put together, without a server."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from backupd.consistency import choose
from backupd.consistency.postgres import PostgresStrategy
from backupd.engine import MountedEngine
from backupd.errors import SourceError
from backupd.model import TarReport, Volume, VolumeSpec
from backupd.services import MountPoint, Service, Source
from tests.support.runtime import make_runtime
from tests.support.streams import Given, everything
from tests.support.tars import END, header, padded, walk
from tests.unit.consistency.postgres.test_server import FACTS, FakeServer

SPEC = VolumeSpec("db", volume="db")
VOLUME = Volume(name="db", kind="volume", source="shop_db")
COPY = b"".join(header(name, size=3) + padded(b"abc") for name in (b"backup_label", b"base/1/2600", b"log/today")) + END
CONTROL = header(b"global/pg_control", size=2) + padded(b"pg") + END


@dataclass
class FakeEngine(MountedEngine):
    """Streams instead of volumes."""

    services: Any = None
    beside: bytes = header(b"./", b"5") + END
    excluded: list[Sequence[str]] = field(default_factory=list)

    def tar_out(self, volume: Volume, exclude: Sequence[str] = (), subdirectory: str = "") -> Any:
        assert not subdirectory
        self.excluded.append(tuple(exclude))
        return Given(self.beside)


@dataclass
class Container(FakeServer):
    """One container, whose helper sends what it is given."""

    found: tuple[Service, ...] = ()
    stream: Given = field(default_factory=lambda: Given(COPY[: -len(END)] + CONTROL))
    helpers: list[tuple[Sequence[str], str, bytes]] = field(default_factory=list)

    def users(self, volume: Volume) -> Sequence[Service]:
        return self.found

    def tar_from(
        self,
        service: Service,
        command: Sequence[str],
        *,
        user: str,
        environment: Mapping[str, str] | None = None,
        stdin: bytes = b"",
    ) -> Any:
        assert not environment
        self.helpers.append((command, user, stdin))
        return self.stream


def service(name: str = "db-1", mount: str = "/v/data", **rest: Any) -> Service:
    mounts = (MountPoint("volume", "shop_db", mount, True), *rest.pop("mounts", ()))
    return Service(name, name, "postgres:15", "sha256:1", "running", mounts, environment={"PGDATA": "/v/data"}, **rest)


def strategy(
    tmp_path: Path, *users: Service, spec: VolumeSpec = SPEC, **server: Any
) -> tuple[PostgresStrategy, FakeEngine]:
    engine = FakeEngine(services=Container(found=users, **server))
    return PostgresStrategy(spec, VOLUME, users, make_runtime(tmp_path, engine=engine)), engine


def source(spec: VolumeSpec = SPEC) -> Source:
    return Source(spec, VOLUME, first=True)


def test_a_data_directory_that_is_the_volume(tmp_path: Path) -> None:
    postgres, engine = strategy(tmp_path, service())
    with postgres.read(source()) as reading:
        stream = reading.next(None)
        assert engine.services.helpers == []  # nothing is begun before it is read
        members = walk(everything(stream))[0]  # type: ignore[arg-type]
        assert reading.next(TarReport()) is None
        outcome = reading.outcome()
    assert [member.path for member in members] == [".", "backup_label", "base/1/2600", "log/today", "global/pg_control"]
    assert engine.excluded == [("*",)]
    assert (outcome.consistency, outcome.trouble, outcome.downtime_seconds) == ("postgres", (), {})
    assert outcome.moment is not None
    ((command, user, stdin),) = engine.services.helpers
    assert (user, stdin) == ("70:71", b"")
    assert command[-2].startswith("backupd_")


def test_a_data_directory_below_the_root_and_excludes(tmp_path: Path) -> None:
    spec = replace(SPEC, exclude=("log", "data/base/*/26*"))
    postgres, engine = strategy(tmp_path, service(mount="/v"), spec=spec)
    engine.beside = header(b"./", b"5") + header(b"./data/", b"5") + header(b"./beside") + END
    with postgres.read(source(spec)) as reading:
        members = walk(everything(reading.next(None)))[0]  # type: ignore[arg-type]
    assert engine.excluded == [("log", "data/base/*/26*", "data/*")]
    assert [member.path for member in members] == [".", "data", "beside", "data/backup_label", "data/global/pg_control"]


def test_a_password_goes_by_stdin(tmp_path: Path) -> None:
    user = service()
    user = replace(user, environment={**user.environment, "POSTGRES_PASSWORD": "xyzzy"})
    postgres, engine = strategy(tmp_path, user, users_known={"postgres": "xyzzy"})
    with postgres.read(source()) as reading:
        everything(reading.next(None))  # type: ignore[arg-type]
    ((command, _, stdin),) = engine.services.helpers
    assert stdin == b"xyzzy\n"
    assert "xyzzy" not in " ".join(command)
    assert command[-1] == "password"


def test_damage_is_trouble(tmp_path: Path) -> None:
    line = 'WARNING:  checksum verification failed in file "./base/1/2600", block 3: calculated 1 but expected 2'
    stream = Given(COPY, TarReport(2, ("something else", line)))
    postgres, _ = strategy(tmp_path, service(), stream=stream)
    with postgres.read(source()) as reading:
        everything(reading.next(None))  # type: ignore[arg-type]
        assert reading.outcome().trouble == (line,)


def test_a_failed_copy_says_what_to_do(tmp_path: Path) -> None:
    said = "pg_basebackup: error: FATAL:  number of requested standby connections exceeds max_wal_senders (currently 1)"
    postgres, _ = strategy(tmp_path, service(), stream=Given(COPY[:700], error=said))
    with postgres.read(source()) as reading, pytest.raises(SourceError, match="no free WAL sender") as caught:
        everything(reading.next(None))  # type: ignore[arg-type]
    assert "max_wal_senders" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("facts", "mounts", "note"),
    [
        ({"tablespaces": ["fast"]}, (), "the cluster has tablespaces (fast)"),
        (
            {},
            (MountPoint("volume", "wal", "/v/data/pg_wal", True),),
            "pg_wal of the data directory is a mount",
        ),
    ],
)
def test_a_cluster_that_is_more_than_its_data_directory(
    tmp_path: Path, facts: dict[str, Any], mounts: tuple[MountPoint, ...], note: str
) -> None:
    postgres, engine = strategy(tmp_path, service(mounts=mounts), facts=json.loads(json.dumps({**FACTS, **facts})))
    reading = postgres.read(source())
    assert engine.services.helpers == []
    assert type(reading).__name__ == "_HeldReading"
    assert any(note in line for line in postgres._runtime.progress.notes)  # type: ignore[attr-defined]


def test_nobody_that_runs(tmp_path: Path) -> None:
    stopped = replace(service(), state="exited")
    postgres, engine = strategy(tmp_path, stopped)
    with postgres.read(source()) as reading:
        everything(reading.next(None))  # type: ignore[arg-type]
        assert reading.next(TarReport()) is None
        assert reading.outcome().consistency == "postgres: not running"
        engine.services.found = (service(),)
        with pytest.raises(SourceError, match="db-1 was started while"):
            reading.outcome()
    assert engine.services.asked == []
    assert engine.excluded == [()]


def test_two_servers_on_one_volume(tmp_path: Path) -> None:
    postgres, _ = strategy(tmp_path, service("a"), service("b"))
    with pytest.raises(SourceError, match="which is the server: a, b"):
        postgres.read(source())


def test_a_directory_of_which_nobody_is_known(tmp_path: Path) -> None:
    directory = Volume(name="db", kind="directory", source="/srv/db")
    runtime = make_runtime(tmp_path)
    with pytest.raises(SourceError, match="who uses it is not known here"):
        PostgresStrategy(SPEC, directory, (), runtime).read(Source(SPEC, directory, first=True))


def test_it_is_chosen_unless_another_is_named(tmp_path: Path) -> None:
    _, engine = strategy(tmp_path, service())
    runtime = make_runtime(tmp_path, engine=engine)
    choice = choose(SPEC, VOLUME, runtime)
    assert (choice.strategy.name, choice.why) == ("postgres", "container db-1 (postgres:15) uses it")
    stop = replace(SPEC, consistency="stop", said=frozenset({"consistency"}))
    assert choose(stop, VOLUME, runtime).strategy.name == "stop"
