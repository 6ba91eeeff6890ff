"""Real PostgreSQL servers, copied while they run; servers on the copies hold what they should."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backupd.consistency.postgres import PostgresStrategy, recognises
from backupd.engine import DockerEngine
from backupd.errors import SourceError
from backupd.model import VolumeSpec
from backupd.services import TarStream
from tests.support.engines import helper_names
from tests.support.postgres import BALANCED, PGDATA, TRUST, Inspector, Lab, Load, Server, wait_until
from tests.support.postgres_versions import PACKAGES, NoSuchVersion, versioned_image

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def template(
    docker_client: Any, postgres_image: str, session_labels: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A fresh cluster with checksums, whose server was shut down."""
    volume = docker_client.volumes.create(labels=session_labels)
    container = docker_client.containers.create(
        postgres_image,
        environment={**TRUST, "POSTGRES_INITDB_ARGS": "--data-checksums --no-sync"},
        volumes=[f"{volume.name}:{PGDATA}"],
        labels=session_labels,
    )
    container.start()
    Server(container).wait()
    container.stop()
    return Path(volume.attrs["Mountpoint"])


@pytest.fixture
def lab(
    template: Path,
    docker_engine: DockerEngine,
    docker_client: Any,
    postgres_image: str,
    make_volume: Callable[..., str],
    run_container: Callable[..., Any],
    volume_root: Callable[[str], Path],
    tmp_path: Path,
) -> Lab:
    return Lab(
        docker_engine,
        postgres_image,
        make_volume,
        run_container,
        volume_root,
        tmp_path / "state",
        PostgresStrategy,
        docker_client,
        template,
    )


def test_a_copy_is_a_data_directory_that_starts(lab: Lab) -> None:
    volume = lab.volume()
    server = lab.server(volume)
    server.sql("create table t as select generate_series(1, 20000) i", "create table empty ()")
    copied = lab.copy(volume)
    assert copied.outcome.consistency == "postgres"
    assert copied.outcome.moment is not None
    assert copied.outcome.trouble == ()
    assert copied.outcome.downtime_seconds == {}
    assert copied.report.warning_count == 0, copied.report
    assert {"backup_label", "PG_VERSION", "global/pg_control"} <= set(copied.members)
    assert not {"postmaster.pid", "postmaster.opts", "backup_manifest"} & set(copied.members)
    assert server.slots() == ""
    old, new = (lab.volume_root(name).stat() for name in (volume, copied.volume))
    assert (old.st_uid, old.st_gid, old.st_mode, old.st_mtime_ns) == (
        new.st_uid,
        new.st_gid,
        new.st_mode,
        new.st_mtime_ns,
    )
    again = lab.server(copied.volume)
    assert again.sql("select count(*), sum(i) from t") == "20000|200010000"
    again.check()


def test_a_copy_passes_postgres_own_checks(lab: Lab) -> None:
    volume = lab.volume()
    server = lab.server(volume)
    server.sql("create table t as select generate_series(1, 20000) i", "create index on t (i)")
    copied = lab.copy(volume)
    root = lab.volume_root(copied.volume)
    assert {(path.lstat().st_uid, path.lstat().st_gid) for path in (root, *root.rglob("*"))} == {(999, 999)}
    again = lab.server(copied.volume)
    again.check()
    again.container.stop()
    checker = lab.run_container(
        lab.image,
        entrypoint=["pg_checksums", "--check", "-D", PGDATA],
        user="999",
        volumes=[f"{copied.volume}:{PGDATA}"],
    )
    assert checker.wait()["StatusCode"] == 0, checker.logs()
    assert b"Bad checksums:  0" in checker.logs()


def test_under_load_every_copy_holds_all_that_was_committed(lab: Lab, record_property: Callable[..., None]) -> None:
    volume = lab.volume()
    server = lab.server(volume, "max_wal_size=32MB", "min_wal_size=32MB", "checkpoint_timeout=30s")
    server.run("pgbench", "-U", "postgres", "-i", "-q", "-s", "5", "postgres")
    with Load(server) as load:
        for _ in range(2):
            before = load.count()
            began = load.now()
            copied = lab.copy(volume)
            record_property("longest gap between commits in s", load.longest_gap(began))
            assert copied.outcome.downtime_seconds == {}
            assert load.count() > before, "nobody wrote"
            again = lab.server(copied.volume)
            assert int(again.sql("select count(*) from beats")) >= before
            assert again.sql("select count(*) = max(id) from beats") == "t"
            again.run("psql", "-U", "postgres", "-v", "ON_ERROR_STOP=1", "-Atc", BALANCED)
            again.check()
            again.container.remove(force=True, v=True)
    assert server.slots() == ""


@pytest.mark.parametrize("location", ["elsewhere", "here"])
def test_tablespaces_are_copied_at_a_standstill(lab: Lab, location: str) -> None:
    volume, other = lab.volume(), lab.volume()
    mounts = [f"{other}:/space"] if location == "elsewhere" else []
    path = "/space/fast" if location == "elsewhere" else "/var/lib/postgresql/data/fast"
    mount, environment = PGDATA, {"POSTGRES_HOST_AUTH_METHOD": "trust"}
    if location == "here":
        environment["PGDATA"] = f"{PGDATA}/pgdata"
    server = lab.server(volume, mount=mount, volumes=mounts, environment=environment)
    server.run("sh", "-c", f"mkdir {path} && chown postgres {path}", user="0")
    server.sql(f"create tablespace fast location '{path}'", "create table t tablespace fast as select 7 i")
    copied = lab.copy(volume)
    assert copied.outcome.consistency.startswith("stop")
    assert any("tablespaces (fast)" in note for note in copied.notes), copied.notes
    assert copied.outcome.downtime_seconds.keys() == {server.name}
    assert server.wait().sql("select i from t") == "7"
    if location == "here":
        again = lab.server(copied.volume, environment=environment)
        assert again.sql("select i from t") == "7"


def test_a_part_of_the_data_directory_that_is_mounted_from_elsewhere(lab: Lab) -> None:
    volume, wal = lab.volume(), lab.volume()
    server = lab.server(volume)
    server.sql("create table t as select 7 i")
    server.container.stop()
    carrier = lab.run_container(
        lab.image,
        entrypoint=["sh", "-c", "cp -a /data/pg_wal/. /wal/ && chown 999:999 /wal"],
        volumes=[f"{volume}:/data", f"{wal}:/wal"],
    )
    assert carrier.wait()["StatusCode"] == 0
    server.container.remove()
    server = lab.server(volume, volumes=[f"{wal}:{PGDATA}/pg_wal"])
    copied = lab.copy(volume)
    assert any("pg_wal of the data directory is a mount of its own" in note for note in copied.notes)
    assert copied.outcome.consistency.startswith("stop")
    assert server.wait().sql("select i from t") == "7"


def test_a_standby_is_a_source_as_well(lab: Lab) -> None:
    volume = lab.volume()
    primary = lab.server(volume)
    primary.run("sh", "-c", f"echo 'host replication all all trust' >>{PGDATA}/pg_hba.conf")
    primary.sql("select pg_reload_conf()", "create table t as select generate_series(1, 1000) i")
    (network,) = primary.container.attrs["NetworkSettings"]["Networks"].values()
    follow = f"primary_conninfo=host={network['IPAddress']} user=postgres"
    second = lab.copy(volume).volume
    signal = lab.run_container(
        lab.image, entrypoint=["touch", "/d/standby.signal"], user="999", volumes=[f"{second}:/d"]
    )
    assert signal.wait()["StatusCode"] == 0
    signal.remove()
    standby = lab.server(second, follow)
    assert standby.sql("select pg_is_in_recovery()") == "t"
    primary.sql("insert into t values (1001)")
    wait_until(lambda: standby.sql("select max(i) from t") == "1001", seconds=100)
    copied = lab.copy(second)
    assert any("is a standby" in note for note in copied.notes)
    assert standby.slots() == ""
    assert "standby.signal" in copied.members
    third = lab.server(copied.volume, follow)
    assert third.sql("select max(i) from t", "select pg_is_in_recovery()") == "1001\nt"
    third.run("pg_ctl", "promote", "-D", PGDATA)
    third.check()


@pytest.mark.parametrize("mount", ["/var/lib/postgresql", "/bitnami/postgresql"])
def test_a_data_directory_below_the_volumes_root(lab: Lab, mount: str) -> None:
    volume = lab.volume()
    environment = {"POSTGRES_HOST_AUTH_METHOD": "trust", "PGDATA": f"{mount}/18/docker", "POSTGRES_INITDB_ARGS": "-N"}
    server = lab.server(volume, mount=mount, environment=environment)
    server.sql("create table t as select generate_series(1, 20000) i")
    server.run("sh", "-c", f"cd {mount} && mkdir conf && echo a >conf/a && echo b >'18/b' && chmod 711 18", user="0")
    root = lab.volume_root(volume)
    os.setxattr(root, "user.note", b"kept")
    os.setxattr(root / "18/docker", "user.note", b"kept too")
    copied = lab.copy(volume, exclude=("a", "18/docker/pg_ident.conf"))
    found = lab.volume_root(copied.volume)
    assert {"18/docker/PG_VERSION", "18/b", "conf"} <= set(copied.members)
    assert not {"conf/a", "18/docker/pg_ident.conf", "18/docker/postmaster.pid", "PG_VERSION"} & set(copied.members)
    for path in (".", "18", "18/docker", "conf"):
        old, new = (root / path).stat(), (found / path).stat()
        assert (old.st_uid, old.st_mode) == (new.st_uid, new.st_mode), path
    assert os.getxattr(found, "user.note") == b"kept"
    assert os.getxattr(found / "18/docker", "user.note") == b"kept too"
    (found / "18/docker/pg_ident.conf").touch()
    again = lab.server(copied.volume, mount=mount, environment=environment)
    assert again.sql("select sum(i) from t") == "200010000"


def test_a_stopped_server_is_copied_as_it_is(lab: Lab) -> None:
    volume = lab.volume()
    server = lab.server(volume)
    server.sql("create table t as select 7 i")
    server.container.kill()
    copied = lab.copy(volume)
    assert copied.outcome.consistency == "postgres: not running"
    assert copied.outcome.moment is not None
    assert lab.server(copied.volume).sql("select i from t") == "7"


def test_damaged_pages_are_named_and_the_rest_is_saved(lab: Lab) -> None:
    volume = lab.volume()
    server = lab.server(volume, "autovacuum=off")
    server.sql("create table t as select generate_series(1, 20000) i", "create table good as select 7 i")
    server.sql("vacuum freeze t", "checkpoint")  # so that nothing writes its pages again
    path = server.sql("select pg_relation_filepath('t')")
    with (lab.volume_root(volume) / path).open("r+b") as file:
        file.seek(3 * 8192 + 4000)
        file.write(b"damaged")
    copied = lab.copy(volume)
    assert copied.report.warning_count > 0
    (line,) = (line for line in copied.outcome.trouble if "checksum verification failed" in line)
    assert path in line
    assert "block 3" in line
    again = lab.server(copied.volume)
    assert again.sql("select i from good") == "7"
    again.check_fails("t")


def test_whole_pages_are_no_trouble(lab: Lab) -> None:
    volume = lab.volume()
    server = lab.server(volume)
    server.sql("create table t as select generate_series(1, 20000) i", "checkpoint")
    assert lab.copy(volume).outcome.trouble == ()


SCRAM = {"POSTGRES_PASSWORD": "xyzzy plugh'\"$", "POSTGRES_INITDB_ARGS": "--auth-host=scram-sha-256 --no-sync"}


def test_a_password_is_found_and_shown_to_nobody(lab: Lab, docker_client: Any, caplog: Any) -> None:
    volume = lab.volume()
    environment = {**SCRAM, "POSTGRES_USER": "app", "POSTGRES_DB": "shop"}
    server = lab.server(volume, environment=environment)
    server.sql("drop database postgres", "create table t as select 7 i", database="shop")
    seen = Inspector(docker_client)
    strategy, source = lab.strategy(volume)
    with strategy.read(source) as reading, reading.next(None) as stream:  # type: ignore[union-attr]
        buffer = memoryview(bytearray(1 << 20))
        while stream.readinto(buffer):
            seen.look()
        stream.finish()
    assert len(seen.helpers) == 2
    assert "xyzzy" not in seen.text
    again = lab.server(lab.copy(volume).volume, environment=environment)
    assert again.sql("select i from t", database="shop") == "7"


def test_a_password_file(lab: Lab, tmp_path: Path) -> None:
    volume = lab.volume()
    secret = tmp_path / "secret"
    secret.write_text(SCRAM["POSTGRES_PASSWORD"] + "\n")
    secret.chmod(0o600)
    server = lab.server(volume, environment=SCRAM)
    server.container.remove(force=True)
    environment = {"POSTGRES_PASSWORD_FILE": "/run/secrets/db"}
    lab.server(volume, environment=environment, volumes=[f"{secret}:/run/secrets/db:ro"])
    assert lab.copy(volume).outcome.consistency == "postgres"


@pytest.mark.parametrize(
    ("spec", "message", "hint"),
    [
        ({"password": "wrong"}, "refuses the password of user postgres", "`user` and `password`"),
        ({"user": "nobody", "password": "x"}, "refuses the password of user nobody", "`user` and `password`"),
        ({"user": "reader"}, "wants a password of user reader, and none is known", "`user` and `password`"),
        ({"user": "reader", "password": "r"}, "user reader has no right to copy", "alter role reader replication"),
        (
            {"user": "copier", "password": "c"},
            "pg_hba.conf does not let user copier connect",
            "host replication copier",
        ),
    ],
)
def test_logins_that_do_not_do(lab: Lab, scram_volume: str, spec: dict[str, Any], message: str, hint: str) -> None:
    with pytest.raises(SourceError, match=re.escape(message)) as caught:
        lab.copy(scram_volume, **spec)
    assert hint in (caught.value.hint or "")
    assert "\n" not in str(caught.value)
    assert "wrong" not in str(caught.value)


@pytest.mark.parametrize(
    "rule", ["host replication copier 127.0.0.1/32 scram-sha-256", "host replication all all trust"]
)
def test_a_role_that_may_only_copy_is_enough(lab: Lab, scram_volume: str, rule: str) -> None:
    server = Server(lab.containers(scram_volume)[0])
    server.run(
        "sh", "-c", f"echo '{rule}' | cat - {PGDATA}/pg_hba.conf >/tmp/hba && cat /tmp/hba >{PGDATA}/pg_hba.conf"
    )
    server.sql("select pg_reload_conf()")
    copied = lab.copy(scram_volume, user="copier", password="c")
    assert "PG_VERSION" in copied.members


@pytest.fixture
def scram_volume(lab: Lab) -> str:
    """With roles `reader` and `copier`; the latter is shut out from replication by pg_hba.conf."""
    volume = lab.volume()
    server = lab.server(volume, environment=SCRAM)
    server.sql("create role reader login password 'r'", "create role copier login replication password 'c'")
    reject = "host replication copier 127.0.0.1/32 reject"
    server.run(
        "sh", "-c", f"echo '{reject}' | cat - {PGDATA}/pg_hba.conf >/tmp/hba && cat /tmp/hba >{PGDATA}/pg_hba.conf"
    )
    server.sql("select pg_reload_conf()")
    return volume


@pytest.mark.parametrize(
    ("settings", "message", "hint"),
    [
        (("wal_level=minimal", "max_wal_senders=0"), "wal_level = minimal, max_wal_senders = 0", "wal_level = replica"),
        (("max_wal_senders=0",), "max_wal_senders = 0", "max_wal_senders"),
        (("max_replication_slots=0",), "max_replication_slots = 0", "max_replication_slots"),
        (("listen_addresses=",), "listens on no address", "listen_addresses"),
    ],
)
def test_settings_that_rule_a_copy_out(lab: Lab, settings: tuple[str, ...], message: str, hint: str) -> None:
    volume = lab.volume()
    lab.server(volume)  # that its data are made
    lab.containers(volume)[0].remove(force=True)
    server = lab.server(volume, *settings, ready=False)
    wait_until(lambda: server.container.exec_run(["pg_isready", "-q"]).exit_code == 0)
    with pytest.raises(SourceError, match=re.escape(message)) as caught:
        lab.copy(volume)
    assert hint in (caught.value.hint or "")
    assert "consistency: stop" in (caught.value.hint or "")


def test_one_wal_sender_too_few(lab: Lab) -> None:
    volume = lab.volume()
    server = lab.server(volume, "max_wal_senders=1", "superuser_reserved_connections=0")
    busy = server.container.exec_run(
        ["pg_receivewal", "-h", "127.0.0.1", "-U", "postgres", "-D", "/tmp"], user="999", detach=True
    )
    del busy
    wait_until(lambda: server.sql("select count(*) from pg_stat_replication") == "1")
    with pytest.raises(SourceError, match="no free WAL sender"):
        lab.copy(volume)
    assert server.slots() == ""


def test_a_container_without_a_server(lab: Lab) -> None:
    volume = lab.volume()
    lab.server(volume).container.remove(force=True)
    lab.run_container(lab.image, entrypoint=["sleep", "1000"], volumes=[f"{volume}:{PGDATA}"])
    with pytest.raises(SourceError, match=r"does not answer|PostgreSQL does not run in it"):
        lab.copy(volume)


@pytest.mark.parametrize(
    ("victim", "wanted"), [("helper", "killed by signal 9"), ("server", "server closed the connection|terminat|killed")]
)
def test_a_copy_that_is_cut_short_fails_and_leaves_nothing(
    lab: Lab, docker_client: Any, victim: str, wanted: str
) -> None:
    volume = lab.volume()
    server = lab.server(volume)
    server.sql("create table t as select i, repeat('x', 900) from generate_series(1, 100000) i")
    strategy, source = lab.strategy(volume)
    buffer = memoryview(bytearray(1 << 20))
    with strategy.read(source) as reading, reading.next(None) as stream:  # type: ignore[union-attr]
        for _ in range(20):
            assert stream.readinto(buffer)
        assert (
            server.sql("select count(*) from pg_replication_slots where temporary and slot_name ~ '^backupd_'") == "1"
        )
        if victim == "helper":
            (name,) = helper_names(docker_client)
            docker_client.containers.get(name).kill()
        else:
            server.container.kill()
        with pytest.raises(SourceError, match=wanted):
            read_to_the_end(stream)
    assert helper_names(docker_client) == []
    if victim == "helper":
        wait_until(lambda: server.slots() == "")
        assert server.sql("select count(*) from pg_stat_progress_basebackup") == "0"
        assert lab.copy(volume).outcome.consistency == "postgres"


def test_which_containers_are_recognised(lab: Lab, helper_image: str) -> None:
    volume = lab.volume()
    server = lab.server(volume)
    lab.run_container(helper_image, ["sleep", "1000"], volumes=[f"{volume}:/look:ro"])
    found = lab.engine.find(VolumeSpec("db", volume=volume))
    users = lab.engine.services.users(found)
    assert [user.name for user in users if recognises(user, found)] == [server.name]


@pytest.mark.parametrize("major", sorted(PACKAGES))
def test_every_version(lab: Lab, docker_client: Any, major: int) -> None:
    try:
        image = versioned_image(docker_client, lab.image, major)
    except NoSuchVersion as exc:
        pytest.skip(str(exc))
    package = PACKAGES[major]
    volume = lab.volume()
    environment = {
        "PGDATA": package.pgdata,
        **SCRAM,
        "POSTGRES_INITDB_ARGS": "--auth-host=scram-sha-256 --data-checksums --no-sync",
    }
    sockets = "unix_socket_directories=/var/run/postgresql,/tmp"  # where one build or another looks
    server = lab.server(volume, sockets, "autovacuum=off", image=image, mount=package.mount, environment=environment)
    assert int(server.sql("show server_version_num")) // 10000 == major
    server.sql("create table t as select generate_series(1, 20000) i", "vacuum freeze t", "checkpoint")
    path = server.sql("select pg_relation_filepath('t')")
    copied = lab.copy(volume)
    assert copied.outcome.consistency == "postgres"
    assert copied.outcome.trouble == ()
    assert server.slots() == ""
    again = lab.server(copied.volume, sockets, image=image, mount=package.mount, environment=environment)
    assert again.sql("select count(*), sum(i) from t") == "20000|200010000"
    prefix = package.pgdata.removeprefix(package.mount).strip("/")
    with (lab.volume_root(volume) / prefix / path).open("r+b") as file:
        file.seek(3 * 8192 + 4000)
        file.write(b"damaged")
    assert any("checksum verification failed" in line for line in lab.copy(volume).outcome.trouble)


def read_to_the_end(stream: TarStream) -> None:
    buffer = memoryview(bytearray(1 << 20))
    while stream.readinto(buffer):
        pass
    stream.finish()
