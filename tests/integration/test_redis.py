"""Redis copied while it is written: with and without append-only file, password, users, TLS, saves in between."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest

from backupd.consistency.redis import RedisStrategy, recognises
from backupd.engine import DockerEngine
from backupd.errors import SourceError
from backupd.model import Volume, VolumeSpec
from backupd.runtime import Runtime
from backupd.services import Service
from tests.support.readings import Read, notes_of, read_with, runtime_of, write
from tests.support.redis import Redis, derived_image, held_by, start_server, start_writer

pytestmark = pytest.mark.docker

AOF = ("--appendonly", "yes")


@dataclass
class Stage:
    """A server on a volume, the strategy that reads it, and places to restore to."""

    engine: DockerEngine
    runtime: Runtime
    run_container: Callable[..., Any]
    make_volume: Callable[..., str]
    volume_root: Callable[[str], Path]
    image: str
    helper_image: str
    client: docker.DockerClient

    def __post_init__(self) -> None:
        self.name = self.make_volume()
        self.root = self.volume_root(self.name)
        self.volume: Volume = self.engine.find(VolumeSpec("v", volume=self.name))

    def start(self, *arguments: str, **rest: Any) -> Redis:
        self.server = start_server(self.run_container, self.image, self.name, arguments, **rest)
        return self.server

    def users(self) -> list[Service]:
        return list(self.engine.services.users(self.volume))

    def read(self, **fields: Any) -> Read:
        spec = VolumeSpec("v", consistency="redis", **fields)
        return read_with(RedisStrategy(spec, self.volume, self.users(), self.runtime), spec, self.volume)

    def restored(self, read: Read) -> Path:
        self.copy = self.make_volume()
        write(self.engine, self.engine.find(VolumeSpec("c", volume=self.copy)), read.stream)
        return self.volume_root(self.copy)

    def started(self, read: Read, *arguments: str, **rest: Any) -> Redis:
        """A server on what was restored, which its own checkers have passed."""
        root = self.restored(read)
        kind = rest.get("kind", "redis")
        checks = [[f"{kind}-check-rdb", str(path.relative_to(root))] for path in root.rglob("*.rdb")]
        if rest.pop("check_aof", True):
            checks += [[f"{kind}-check-aof", str(path.relative_to(root))] for path in root.rglob("*.manifest")]
        for check in checks:
            container = self.run_container(self.image, check, volumes=[f"{self.copy}:/data"])
            assert container.wait()["StatusCode"] == 0, container.logs().decode()
        return start_server(self.run_container, self.image, self.copy, arguments, **rest)


@pytest.fixture
def stage(
    docker_engine: DockerEngine,
    run_container: Callable[..., Any],
    make_volume: Callable[..., str],
    volume_root: Callable[[str], Path],
    redis_image: str,
    helper_image: str,
    docker_client: docker.DockerClient,
    tmp_path: Path,
) -> Stage:
    runtime = runtime_of(docker_engine, tmp_path / "state")
    return Stage(
        docker_engine, runtime, run_container, make_volume, volume_root, redis_image, helper_image, docker_client
    )


@pytest.mark.parametrize("arguments", [(), AOF], ids=["rdb", "aof"])
def test_while_it_is_written(
    stage: Stage, arguments: tuple[str, ...], record_property: Callable[[str, object], None]
) -> None:
    """Every write that was acknowledged before the copy began is in it, whatever the server saves and rewrites."""
    server = stage.start(*arguments, "--save", "1 1")
    server.fill()
    writer = start_writer(stage.run_container, stage.helper_image, server)
    for number in range(4):
        if arguments and number % 2:
            server.cli("BGREWRITEAOF")
        before = writer.acknowledged()
        begin = time.time()
        read = stage.read()
        end = time.time()
        copy = stage.started(read, *arguments)
        assert before <= held_by(copy) <= writer.acknowledged()
        assert int(copy.cli("DBSIZE")) > 20_000
        assert read.outcome.consistency == "redis"
        assert read.outcome.moment is not None
        assert begin <= read.outcome.moment.timestamp() <= end
        record_property("longest gap", writer.longest_gap(begin, end))
        copy.container.remove(force=True)


class TestFiles:
    def test_append_only(self, stage: Stage) -> None:
        server = stage.start(*AOF, "--save", "")
        server.fill()
        server.cli("SET", "a", "b")
        (stage.root / "users.acl").write_text("nobody's")
        root = stage.restored(stage.read())
        found = sorted(str(path.relative_to(root)) for path in root.rglob("*"))
        names = ["appendonly.aof.1.base.rdb", "appendonly.aof.manifest"]
        assert found == ["appendonlydir", *(f"appendonlydir/{name}" for name in names), "dump.rdb", "users.acl"]
        live, copied = stage.root / "appendonlydir", root / "appendonlydir"
        assert (copied.stat().st_uid, copied.stat().st_mode) == (live.stat().st_uid, live.stat().st_mode)
        for name in names:
            assert (copied / name).stat().st_uid == live.stat().st_uid
        assert (copied / names[0]).samefile(root / "dump.rdb")

    @pytest.mark.parametrize("after", [(), AOF], ids=["as rdb", "as aof"])
    def test_a_restored_append_only_server_goes_on(self, stage: Stage, after: tuple[str, ...]) -> None:
        """It holds the data, under either setting, also after writes, rewrites and a restart of its own."""
        stage.start(*AOF).cli("SET", "a", "b")
        copy = stage.started(stage.read(), *after)
        assert copy.cli("GET", "a") == "b"
        copy.cli("SET", "c", "d")
        if after:
            copy.cli("BGREWRITEAOF")
            copy.wait_until(lambda: copy.info("aof_rewrite_in_progress") == copy.info("aof_rewrite_scheduled") == "0")
            copy.cli("SET", "e", "f")
        copy.container.restart()
        copy.wait()
        assert copy.cli("MGET", "a", "c", "e").split("\n") == ["b", "d", *(["f"] if after else [])]

    def test_names_of_its_own(self, stage: Stage) -> None:
        (stage.root / "db").mkdir()
        arguments = ("--dir", "/data/db", "--dbfilename", "x.rdb", *AOF)
        names = ("--appenddirname", "a dir", "--appendfilename", 'o"d d.aof')
        stage.start(*arguments, *names).cli("SET", "a", "b")
        (stage.root / "db/temp-77.rdb").write_text("half")
        copy = stage.started(stage.read(), *arguments, *names)
        assert copy.cli("GET", "a") == "b"
        assert not (stage.volume_root(stage.copy) / "db/temp-77.rdb").exists()

    def test_server_that_does_not_run(self, stage: Stage) -> None:
        server = stage.start(*AOF)
        server.cli("SET", "a", "b")
        server.container.stop()
        read = stage.read()
        assert read.outcome.consistency == "redis: not running"
        copy = stage.started(read, *AOF)
        assert copy.cli("GET", "a") == "b"

    def test_replica(self, stage: Stage) -> None:
        primary = start_server(stage.run_container, stage.image, stage.make_volume())
        primary.cli("SET", "a", "b")
        address = primary.container.client.containers.get(primary.container.id).attrs["NetworkSettings"]["IPAddress"]
        replica = stage.start("--replicaof", address, "6379")
        replica.wait_until(lambda: replica.info("master_link_status") == "up")
        assert stage.started(stage.read()).cli("GET", "a") == "b"


class TestAccess:
    def check(self, stage: Stage, **fields: Any) -> None:
        stage.server.cli("SET", "a", "b")
        copy = stage.started(stage.read(**fields))
        assert copy.cli("GET", "a") == "b"
        assert not any("xyzzy" in note for note in notes_of(stage.runtime))

    def test_password_of_the_command_line(self, stage: Stage) -> None:
        stage.start("--requirepass", "xyzzy 1", password="xyzzy 1")
        self.check(stage)

    def test_password_of_a_shell_command(self, stage: Stage) -> None:
        container = stage.run_container(
            stage.image,
            ["sh", "-c", 'exec redis-server --port 7000 --requirepass "$SECRET"'],
            environment={"SECRET": "xyzzy"},
            volumes=[f"{stage.name}:/data"],
        )
        stage.server = Redis(container, ("-a", "xyzzy", "-p", "7000"))
        stage.server.wait()
        self.check(stage)

    def test_password_of_the_environment(self, stage: Stage) -> None:
        stage.start("--requirepass", "", environment={"REDIS_PASSWORD": "xyzzy"})
        stage.server.cli("CONFIG", "SET", "requirepass", "xyzzy")
        stage.server = Redis(stage.server.container, ("-a", "xyzzy"))
        self.check(stage)

    def test_password_of_a_secret(self, stage: Stage, tmp_path: Path) -> None:
        (stage.root / "secret").write_text("xyzzy\n")
        stage.start(environment={"REDIS_PASSWORD_FILE": "/data/secret"})
        stage.server.cli("CONFIG", "SET", "requirepass", "xyzzy")
        stage.server = Redis(stage.server.container, ("-a", "xyzzy"))
        self.check(stage)

    def test_configuration_file(self, stage: Stage) -> None:
        (stage.root / "more.conf").write_text('requirepass "xyz\'zy #1"\nport 7001\n')
        (stage.root / "redis.conf").write_text("# port 1\nport 7000\ninclude /data/more.conf\ndir /data\n")
        container = stage.run_container(
            stage.image, ["redis-server", "/data/redis.conf"], volumes=[f"{stage.name}:/data"]
        )
        stage.server = Redis(container, ("-a", "xyz'zy #1", "-p", "7001"))
        stage.server.wait()
        self.check(stage)

    def test_user_of_the_settings(self, stage: Stage) -> None:
        rules = ("on", ">xyzzy", "+info", "+config|get", "+bgsave", "+ping")
        stage.start("--user", "backup", *rules)
        self.check(stage, user="backup", password="xyzzy")
        stage.server.cli("CONFIG", "SET", "requirepass", "other")
        with pytest.raises(SourceError, match="NOAUTH"):
            stage.read(user="backup", password="wrong")

    def test_user_who_may_not(self, stage: Stage) -> None:
        stage.start("--user", "backup", "on", ">xyzzy", "+info", "+ping", "+config|get")
        with pytest.raises(SourceError, match=r"refuses BGSAVE: NOPERM") as caught:
            stage.read(user="backup", password="xyzzy")
        assert "consistency: stop" in str(caught.value.hint)

    def test_no_password_at_hand(self, stage: Stage) -> None:
        stage.start()
        stage.server.cli("CONFIG", "SET", "requirepass", "xyzzy")
        with pytest.raises(SourceError, match="NOAUTH") as caught:
            stage.read()
        assert "`password:`" in str(caught.value.hint)

    def test_forbidden_command(self, stage: Stage) -> None:
        (stage.root / "redis.conf").write_text('rename-command CONFIG ""\n')
        stage.start("/data/redis.conf")
        with pytest.raises(SourceError, match="refuses CONFIG GET: ERR unknown command") as caught:
            stage.read()
        assert "consistency: stop" in str(caught.value.hint)

    def test_no_client(self, stage: Stage) -> None:
        stage.start()
        assert stage.server.container.exec_run(["rm", "/usr/bin/redis-cli"]).exit_code == 0
        with pytest.raises(SourceError, match="has no redis-cli, valkey-cli or keydb-cli"):
            stage.read()

    def test_unix_socket_only(self, stage: Stage) -> None:
        container = stage.run_container(
            stage.image,
            ["redis-server", "--port", "0", "--unixsocket", "/tmp/redis.sock"],
            volumes=[f"{stage.name}:/data"],
        )
        stage.server = Redis(container, ("-s", "/tmp/redis.sock"))
        stage.server.wait()
        self.check(stage)


class TestSaving:
    def test_a_save_that_goes_on_is_waited_for(self, stage: Stage) -> None:
        """What it writes is of a moment that has passed."""
        server = stage.start("--save", "", "--rdb-key-save-delay", "300")
        server.fill(5000)
        server.cli("BGSAVE")
        assert server.info("rdb_bgsave_in_progress") == "1"
        server.cli("SET", "a", "after it began")
        assert stage.started(stage.read()).cli("GET", "a") == "after it began"

    def test_a_file_that_is_replaced_while_it_is_read(self, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        """What is kept is one of the whole files, and it has been checked."""
        server = stage.start("--save", "")
        server.fill(20_000, 2000)
        spec = VolumeSpec("v", consistency="redis")
        strategy = RedisStrategy(spec, stage.volume, stage.users(), stage.runtime)
        tar_out = stage.engine.tar_out
        passes = 0

        def saving_before(volume: Volume, exclude: Any = ()) -> Any:
            nonlocal passes
            passes += 1
            if passes == 1:  # between the check and tar
                server.cli("SET", "late", "yes")
                time.sleep(1.1)
                server.cli("SAVE")
            return tar_out(volume, exclude)

        monkeypatch.setattr(stage.engine, "tar_out", saving_before)
        read = read_with(strategy, spec, stage.volume)
        assert stage.started(read).cli("GET", "late") == "yes"
        assert notes_of(stage.runtime) == []

    def test_a_disk_that_is_full(self, stage: Stage) -> None:
        server = stage.start("--save", "")
        server.cli("SET", "a", "b")
        (stage.root / "dump.rdb").mkdir()  # what is saved cannot take its place
        with pytest.raises(SourceError, match="could not save its data") as caught:
            stage.read()
        assert "disk" in str(caught.value.hint)

    def test_what_the_checker_refuses(self, stage: Stage) -> None:
        stage.start("--save", "")
        script = b'#!/bin/sh\necho "--- RDB ERROR DETECTED ---"\nexit 1\n'
        stage.server.container.remove(force=True)
        with derived_image(stage.client, stage.image, {"usr/local/bin/redis-check-rdb": script}) as stage.image:
            stage.start("--save", "").cli("SET", "a", "b")
            with pytest.raises(SourceError, match="is not right: --- RDB ERROR"):
                stage.read()

    def test_excluded_by_mistake(self, stage: Stage) -> None:
        stage.start().cli("SET", "a", "b")
        with pytest.raises(SourceError, match="tar did not read"):
            stage.read(exclude=("*.rdb",))

    def test_data_elsewhere(self, stage: Stage) -> None:
        stage.start("--dir", "/tmp")
        with pytest.raises(SourceError, match="keeps its data in /tmp, which is not in"):
            stage.read()


def test_what_is_recognised(stage: Stage) -> None:
    stage.start()
    (service,) = stage.users()
    assert recognises(service, stage.volume)
