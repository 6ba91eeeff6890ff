"""The command line finds out by itself that a volume is a Redis's or an application's with SQLite, or is told so."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import docker
import pytest

from tests.support.cli import Cli
from tests.support.dockerd import Host
from tests.support.redis import held_by, start_server
from tests.support.redis import start_writer as start_redis_writer
from tests.support.sqlite import OWNER, fill, numbers
from tests.support.sqlite import start_writer as start_sqlite_writer

pytestmark = pytest.mark.docker


@pytest.fixture
def volume(make_volume: Callable[..., str]) -> str:
    return make_volume()


@pytest.fixture
def configured(make_cli: Callable[..., Cli], docker_host: Host, helper_image: str, volume: str) -> Callable[..., Cli]:
    def configured(helper: str = helper_image, **settings: Any) -> Cli:
        docker_settings = {"host": docker_host.url, "helper_image": helper}
        return make_cli(docker=docker_settings, volumes={"data": {"volume": volume, **settings}})

    return configured


def test_redis_under_load(
    configured: Callable[..., Cli],
    volume: str,
    make_volume: Callable[..., str],
    run_container: Callable[..., Any],
    redis_image: str,
    helper_image: str,
) -> None:
    cli = configured()
    arguments = ("--appendonly", "yes", "--requirepass", "xyzzy")
    server = start_server(run_container, redis_image, volume, arguments, "xyzzy")
    server.fill()
    writer = start_redis_writer(run_container, helper_image, server, "xyzzy")
    for kind in ("full", "incremental"):
        before = writer.acknowledged()
        (archive,) = cli.json("backup")["snapshot"]["archives"]
        assert (archive["consistency"], archive["full"]) == ("redis", kind == "full")
        assert archive["moment"] is not None
        assert archive.get("trouble", []) == []
        copy = make_volume()
        cli.run("restore", "latest", "data", "--into", copy, "--yes")
        restored = start_server(run_container, redis_image, copy, arguments, "xyzzy")
        assert before <= held_by(restored) <= writer.acknowledged()
    assert cli.json("verify", "--read-data")["problems"] == []
    assert "xyzzy" not in cli.run("-v", "backup").stderr
    assert server.info("rdb_last_bgsave_status") == "ok"


def test_one_file_of_a_redis(
    configured: Callable[..., Cli],
    volume: str,
    run_container: Callable[..., Any],
    redis_image: str,
    tmp_path: Path,
) -> None:
    """The base of the append-only file is a hard link to the saved file, which comes with it."""
    cli = configured()
    start_server(run_container, redis_image, volume, ("--appendonly", "yes")).cli("SET", "a", "b")
    cli.run("backup")
    base = "appendonlydir/appendonly.aof.1.base.rdb"
    cli.run("restore", "latest", "data", "--path", base, "--to-dir", str(tmp_path / "out"), "--yes")
    (found,) = (tmp_path / "out").rglob("*.base.rdb")
    assert found.read_bytes().startswith(b"REDIS")


def test_redis_that_cannot_be_asked_fails_the_run(
    configured: Callable[..., Cli], volume: str, run_container: Callable[..., Any], redis_image: str
) -> None:
    server = start_server(run_container, redis_image, volume)
    server.cli("CONFIG", "SET", "requirepass", "xyzzy")
    said = configured().error("backup", code=1)
    assert "NOAUTH" in said
    assert "`password:`" in said
    configured(password="xyzzy").run("backup")


@pytest.mark.parametrize("said_by", ["configuration", "label"])
def test_sqlite_under_load(
    said_by: str,
    configured: Callable[..., Cli],
    volume: str,
    make_volume: Callable[..., str],
    volume_root: Callable[[str], Path],
    run_container: Callable[..., Any],
    helper_image: str,
) -> None:
    os.chown(volume_root(volume), OWNER, OWNER)
    labels = {"backupd.consistency": "sqlite"} if said_by == "label" else {}
    writer = start_sqlite_writer(run_container, helper_image, volume, "app.db", "wal", labels=labels)
    writer.wait_for(200)
    cli = configured(**({"consistency": "sqlite"} if said_by == "configuration" else {}))
    for kind in ("full", "incremental"):
        before = writer.acknowledged()
        (archive,) = cli.json("backup")["snapshot"]["archives"]
        assert (archive["consistency"], archive["full"]) == ("sqlite", kind == "full")
        copy = make_volume()
        cli.run("restore", "latest", "data", "--into", copy, "--yes")
        assert [path.name for path in volume_root(copy).iterdir()] == ["app.db"]
        assert before <= numbers(volume_root(copy) / "app.db") <= writer.acknowledged()
    assert cli.json("verify", "--read-data")["problems"] == []


def test_an_application_by_its_image(
    configured: Callable[..., Cli],
    volume: str,
    volume_root: Callable[[str], Path],
    run_container: Callable[..., Any],
    docker_client: docker.DockerClient,
    helper_image: str,
    alpine_image: str,
) -> None:
    """Recognised, it is read by SQLite's means; where the helper image has no Python, by `auto`."""
    os.chown(volume_root(volume), OWNER, OWNER)
    docker_client.images.get(helper_image).tag("backupd-test/pgadmin4", "9")
    try:
        run_container("backupd-test/pgadmin4:9", ["sleep", "600"], volumes=[f"{volume}:/var/lib/pgadmin"])
        with closing(fill(volume_root(volume) / "pgadmin4.db")):
            (archive,) = configured().json("backup")["snapshot"]["archives"]
            assert archive["consistency"] == "sqlite"
            cli = configured(helper=alpine_image)
            result = cli.run("backup")
            assert "no python3" in result.stderr
            assert "copied by auto instead" in result.stderr
            latest = cli.json("show", "latest")
            assert latest["archives"][0]["consistency"].startswith("auto")
    finally:
        docker_client.images.remove("backupd-test/pgadmin4:9", force=True)


def test_a_damaged_database_makes_the_run_incomplete(
    configured: Callable[..., Cli], volume: str, volume_root: Callable[[str], Path], make_volume: Callable[..., str]
) -> None:
    path = volume_root(volume) / "a.db"
    with closing(fill(path, "delete", 2)) as database, database:
        database.execute("CREATE INDEX i ON blobs (number, substr(data, 1, 50))")
    with path.open("r+b") as file:
        file.seek(-4096, os.SEEK_END)
        file.write(os.urandom(4096))
    cli = configured(consistency="sqlite")
    said = cli.run("backup", code=3).stderr
    assert "a.db: is damaged: " in said
    copy = make_volume()
    cli.run("restore", "latest", "data", "--into", copy, "--yes")
    assert (volume_root(copy) / "a.db").read_bytes() == path.read_bytes()
