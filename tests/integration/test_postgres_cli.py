"""The command line finds out by itself that a volume is PostgreSQL's, and what it does then."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import Cli
from tests.support.dockerd import Host
from tests.support.postgres import PGDATA, TRUST, Load, Server

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]


@pytest.fixture
def volume(make_volume: Callable[..., str]) -> str:
    return make_volume()


@pytest.fixture
def cli(make_cli: Callable[..., Cli], docker_host: Host, helper_image: str, volume: str) -> Cli:
    return make_cli(
        docker={"host": docker_host.url, "helper_image": helper_image}, volumes={"postgres": {"volume": volume}}
    )


@pytest.fixture
def start(run_container: Callable[..., Any], postgres_image: str) -> Callable[..., Server]:
    def start(volume: str) -> Server:
        environment = {**TRUST, "POSTGRES_INITDB_ARGS": "--data-checksums"}
        return Server(run_container(postgres_image, volumes=[f"{volume}:{PGDATA}"], environment=environment)).wait()

    return start


def test_backup_and_restore_under_load(
    cli: Cli, start: Callable[[str], Server], volume: str, make_volume: Callable[..., str]
) -> None:
    server = start(volume)
    server.run("pgbench", "-U", "postgres", "-i", "-q", "-s", "2", "postgres")
    with Load(server, rate=50) as load:
        for kind in ("full", "incremental"):
            committed, began = load.count(), datetime.fromisoformat(load.now())
            taken = cli.json("backup")
            (archive,) = taken["snapshot"]["archives"]
            assert (archive["consistency"], archive["full"]) == ("postgres", kind == "full")
            assert began < datetime.fromisoformat(archive["moment"]) < datetime.fromisoformat(load.now())
            assert archive.get("trouble", []) == []
            assert archive["warnings"] == []
    copy = make_volume()
    cli.run("restore", "latest", "postgres", "--into", copy, "--yes")
    again = start(copy)
    assert int(again.sql("select count(*) from beats")) >= committed
    again.check()
    assert cli.json("verify", "--read-data")["problems"] == []


def test_a_damaged_page_makes_the_run_incomplete_and_is_named(
    cli: Cli,
    start: Callable[[str], Server],
    volume: str,
    volume_root: Callable[[str], Path],
    make_volume: Callable[..., str],
) -> None:
    server = start(volume)
    server.sql("create table t as select generate_series(1, 20000) i", "create table good as select 7 i")
    server.sql("vacuum freeze", "checkpoint")  # so that nothing writes its pages again
    path = server.sql("select pg_relation_filepath('t')")
    with (volume_root(volume) / path).open("r+b") as file:
        file.seek(4000)
        file.write(b"damaged")
    said = cli.run("backup", code=3).stderr
    assert "checksum verification failed" in said
    assert path in said
    copy = make_volume()
    cli.run("restore", "latest", "postgres", "--into", copy, "--yes")
    assert start(copy).sql("select i from good") == "7"
