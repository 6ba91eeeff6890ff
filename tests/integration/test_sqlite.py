"""SQLite databases copied while they are written, in containers and from directories."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest

from backupd.consistency import sqlite as strategy_module
from backupd.consistency.sqlite import SqliteStrategy
from backupd.engine import DockerEngine, MountedEngine
from backupd.errors import SourceError
from backupd.model import Volume, VolumeSpec
from backupd.ports import Engine
from backupd.runtime import Runtime
from tests.support.dockerd import Host
from tests.support.engines import EngineUnderTest, helper_names, opened_up
from tests.support.readings import Read, notes_of, read_with, runtime_of, write
from tests.support.sqlite import OWNER, fill, give, numbers, start_writer

SCRATCH = {"label": ["backupd.owner"]}


@dataclass
class Volumes:
    """A volume to read, what it is read by, and where copies go."""

    under_test: EngineUnderTest
    runtime: Runtime
    volume: Volume
    root: Path

    def read(self, exclude: tuple[str, ...] = ()) -> Read:
        spec = VolumeSpec("v", exclude=exclude, consistency="sqlite")
        return read_with(SqliteStrategy(spec, self.volume, (), self.runtime), spec, self.volume)

    def restored(self, read: Read) -> Path:
        copy, root = self.under_test.new()
        write(self.under_test.engine, copy, read.stream)
        return root


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.fixture
def volumes(engine: EngineUnderTest, tmp_path: Path) -> Volumes:
    volume, root = engine.new()
    os.chown(root, OWNER, OWNER)
    if engine.name == "mounted":
        opened_up(root)
    return Volumes(engine, runtime_of(engine.engine, tmp_path / "state"), volume, root)


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_while_it_is_written(
    mode: str,
    docker_engine: DockerEngine,
    make_volume: Callable[..., str],
    volume_root: Callable[[str], Path],
    run_container: Callable[..., Any],
    helper_image: str,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    """Every commit that was acknowledged before the copy began is in it, and nothing that is torn."""
    name = make_volume()
    root = volume_root(name)
    os.chown(root, OWNER, OWNER)
    writer = start_writer(run_container, helper_image, name, "app.db", mode)
    writer.wait_for(300)
    volume = docker_engine.find(VolumeSpec("v", volume=name))
    runtime = runtime_of(docker_engine, tmp_path / "state")
    spec = VolumeSpec("v", consistency="sqlite")
    for _ in range(5):
        before = writer.acknowledged()
        begin = time.time()
        read = read_with(SqliteStrategy(spec, volume, (), runtime), spec, volume)
        end = time.time()
        copy = docker_engine.find(VolumeSpec("c", volume=make_volume()))
        write(docker_engine, copy, read.stream)
        found = volume_root(copy.source)
        assert sorted(path.name for path in found.iterdir()) == ["app.db"]
        assert (found / "app.db").stat().st_uid == OWNER
        assert before <= numbers(found / "app.db") <= writer.acknowledged()
        assert read.outcome.consistency == "sqlite"
        assert read.outcome.moment is not None
        assert begin <= read.outcome.moment.timestamp() <= end
        record_property(f"longest gap, {mode}", writer.longest_gap(begin, end))
    owners = {path.name: path.stat().st_uid for path in root.iterdir()}
    assert set(owners.values()) == {OWNER}, owners
    assert "Error" not in writer.container.logs().decode()


@pytest.mark.parametrize(
    "engine", [pytest.param("docker-fifo-gnu", marks=pytest.mark.docker), "mounted"], indirect=True
)
class TestVolume:
    def test_databases_by_their_content_the_rest_as_files(self, volumes: Volumes) -> None:
        root = volumes.root
        (root / "deep/er").mkdir(parents=True)
        os.chown(root / "deep/er", OWNER, OWNER)
        odd = root / "deep/er" / os.fsdecode(b"no [name]* like\xff a data-base")
        with (
            closing(fill(root / "open.db")) as open_one,
            closing(fill(odd, "delete")),
            closing(fill(root / "truncate", "persist")),
        ):
            with open_one:
                open_one.execute("INSERT INTO blobs (data) VALUES ('last')")
            (root / "open.db").chmod(0o640)
            os.setxattr(root / "open.db", "user.kept", b"yes")
            os.utime(root / "open.db", ns=(1, 1_500_000_000_123_456_789))
            (root / "notes-wal").write_text("nobody's")
            (root / "empty.db").touch()
            (root / "text.db").write_text("SQLite format 3")
            (root / "link.db").symlink_to("open.db")
            assert (root / "open.db-wal").exists()
            assert (root / "truncate-journal").exists()
            read = volumes.read()
        found = volumes.restored(read)
        names = sorted(str(path.relative_to(found)) for path in found.rglob("*"))
        expected = [
            "deep",
            "deep/er",
            str(odd.relative_to(root)),
            "empty.db",
            "link.db",
            "notes-wal",
            "open.db",
            "text.db",
            "truncate",
        ]
        assert names == sorted(expected)
        status = (found / "open.db").stat()
        assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o640, OWNER, OWNER)
        assert status.st_mtime_ns == 1_500_000_000_123_456_789
        assert os.getxattr(found / "open.db", "user.kept") == b"yes"
        with closing(sqlite3.connect(found / "open.db")) as copy:
            assert copy.execute("PRAGMA journal_mode").fetchone() == ("wal",)
            assert copy.execute("SELECT data FROM blobs WHERE number = 2").fetchone() == ("last",)
        for name in (odd.relative_to(root), "truncate"):
            assert (found / name).read_bytes() == (root / name).read_bytes()
        assert notes_of(volumes.runtime) == []

    def test_unchanged_databases_give_the_same_stream(self, volumes: Volumes) -> None:
        fill(volumes.root / "b.db", "delete").close()
        with closing(fill(volumes.root / "a.db")) as held_open:
            held_open.execute("SELECT count(*) FROM blobs").fetchone()
            assert volumes.read().stream == volumes.read().stream
        assert names(volumes.root) == ["a.db", "b.db"]

    def test_idle_database_leaves_nothing_behind(self, volumes: Volumes) -> None:
        fill(volumes.root / "a.db").close()
        before = (volumes.root / "a.db").read_bytes()
        volumes.read()
        assert (volumes.root / "a.db").read_bytes() == before
        assert names(volumes.root) == ["a.db"]

    def test_excluded(self, volumes: Volumes) -> None:
        (volumes.root / "cache").mkdir()
        for name in ("cache/a.db", "b.db", "thumbs.db"):
            fill(volumes.root / name).close()
        found = volumes.restored(volumes.read(("cache", "/thumbs.*")))
        assert names(found) == ["b.db"]

    def test_directory_that_is_closed_to_the_owner(self, volumes: Volumes) -> None:
        (volumes.root / "closed").mkdir(0o700)
        with closing(fill(volumes.root / "closed/a.db")) as database, database:
            database.execute("INSERT INTO blobs (data) VALUES (1)")
            database.commit()
            found = volumes.restored(volumes.read())
        with closing(sqlite3.connect(found / "closed/a.db")) as copy:
            assert copy.execute("SELECT count(*) FROM blobs").fetchone() == (2,)
        assert {path.stat().st_uid for path in (volumes.root / "closed").iterdir()} <= {OWNER, 0}

    def test_none_at_all(self, volumes: Volumes) -> None:
        (volumes.root / "f").write_text("x")
        assert names(volumes.restored(volumes.read())) == ["f"]

    def test_what_only_looks_like_one(self, volumes: Volumes) -> None:
        data = b"SQLite format 3\0" + bytes(5000 * 512 - 16)
        (volumes.root / "fake.db").write_bytes(data)
        (volumes.root / "fake.db-journal").write_text("kept")
        read = volumes.read()
        found = volumes.restored(read)
        assert (found / "fake.db").read_bytes() == data
        assert (found / "fake.db-journal").read_text() == "kept"
        assert read.report.warnings == ()

    def test_half_a_database(self, volumes: Volumes) -> None:
        fill(volumes.root / "whole.db", mebibytes=2).close()
        data = (volumes.root / "whole.db").read_bytes()[: 1 << 20]
        (volumes.root / "half.db").write_bytes(data)
        give(volumes.root / "half.db")
        read = volumes.read()
        assert (volumes.restored(read) / "half.db").read_bytes() == data
        assert read.report.warnings == ()
        assert read.outcome.trouble[0].startswith("half.db: looks like a database, but ")
        assert notes_of(volumes.runtime) == [f"v: {read.outcome.trouble[0]}"]

    def test_damaged_one_is_copied_and_told(self, volumes: Volumes) -> None:
        with closing(fill(volumes.root / "a.db", "delete", 4)) as database, database:
            database.execute("CREATE INDEX i ON blobs (number, substr(data, 1, 50))")
        with (volumes.root / "a.db").open("r+b") as file:
            file.seek(-4096, os.SEEK_END)
            file.write(os.urandom(4096))
        read = volumes.read()
        assert (volumes.restored(read) / "a.db").read_bytes() == (volumes.root / "a.db").read_bytes()
        assert read.outcome.trouble[0].startswith("a.db: is damaged: ")

    def test_hot_journal_of_a_crashed_writer(self, volumes: Volumes) -> None:
        """The transaction that the crash cut off is not in the copy, the ones before are."""
        path = volumes.root / "a.db"
        fill(path, "delete", 2).close()
        committed = path.read_bytes()
        script = (
            "import os, sqlite3, sys\n"
            "c = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
            "c.execute('PRAGMA cache_size = 5'); c.execute('PRAGMA cache_spill = 5'); c.execute('BEGIN')\n"
            "c.execute('UPDATE blobs SET data = randomblob(1000000)')\n"
            "os.kill(os.getpid(), 9)\n"
        )
        subprocess.run([sys.executable, "-c", script, str(path)], check=False)
        give(path)
        assert (volumes.root / "a.db-journal").exists()
        assert path.read_bytes() != committed
        found = volumes.restored(volumes.read())
        assert names(found) == ["a.db"]
        assert (found / "a.db").read_bytes() == committed

    def test_log_of_a_crashed_writer(self, volumes: Volumes) -> None:
        path = volumes.root / "a.db"
        script = (
            "import os, sqlite3, sys\n"
            "c = sqlite3.connect(sys.argv[1])\n"
            "c.execute('PRAGMA journal_mode = wal'); c.execute('CREATE TABLE t (a)')\n"
            "c.execute('INSERT INTO t VALUES (7)'); c.commit()\n"
            "os.kill(os.getpid(), 9)\n"
        )
        subprocess.run([sys.executable, "-c", script, str(path)], check=False)
        give(path)
        with closing(sqlite3.connect(volumes.restored(volumes.read()) / "a.db")) as copy:
            assert copy.execute("SELECT a FROM t").fetchall() == [(7,)]

    def test_locked_for_long(self, volumes: Volumes, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(strategy_module, "LOCKED_SECONDS", 0.5)
        for mode in ("delete", "wal"):
            with closing(fill(volumes.root / f"{mode}.db", mode)) as database:
                database.execute("PRAGMA locking_mode = EXCLUSIVE")
                database.execute("BEGIN EXCLUSIVE")
                database.execute("INSERT INTO blobs (data) VALUES (1)")
                with pytest.raises(SourceError, match=rf"{mode}.db: it has been locked .* for 0.5 s") as caught:
                    volumes.read()
                assert "consistency: pause" in str(caught.value.hint)
                database.rollback()
            (volumes.root / f"{mode}.db").unlink()

    def test_a_lock_that_is_let_go_in_time(self, volumes: Volumes) -> None:
        path = volumes.root / "a.db"
        with closing(fill(path, "delete")):
            script = (
                "import sqlite3, sys, time\n"
                "c = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
                "c.execute('BEGIN EXCLUSIVE'); c.execute('DELETE FROM blobs'); print('held', flush=True)\n"
                "time.sleep(1.5); c.execute('COMMIT')\n"
            )
            with subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE) as process:
                assert process.stdout is not None
                process.stdout.readline()
                found = volumes.restored(volumes.read())
        with closing(sqlite3.connect(found / "a.db")) as copy:
            assert copy.execute("SELECT count(*) FROM blobs").fetchone() == (0,)


def test_image_without_python(
    make_docker_engine: Callable[..., DockerEngine], alpine_image: str, make_volume: Callable[..., str], tmp_path: Path
) -> None:
    engine: Engine = make_docker_engine(helper_image=alpine_image)
    volume = engine.find(VolumeSpec("v", volume=make_volume()))
    spec = VolumeSpec("v", consistency="sqlite")
    with pytest.raises(SourceError, match="no python3") as caught:
        read_with(SqliteStrategy(spec, volume, (), runtime_of(engine, tmp_path)), spec, volume)
    assert "helper_image" in str(caught.value.hint)


JOB = """
import sys
from pathlib import Path
from backupd.consistency.sqlite import SqliteStrategy
from backupd.engine import DockerEngine, DockerOptions, MountedEngine
from backupd.model import VolumeSpec
from tests.support.readings import read_with, runtime_of
kind, volume, state, host, image = sys.argv[1:]
state = Path(state)
if kind == "mounted":
    engine, spec = MountedEngine(state / "scratch"), VolumeSpec("v", path=volume)
else:
    engine = DockerEngine(DockerOptions(state / "pipes", host=host, helper_image=image))
    spec = VolumeSpec("v", volume=volume)
found = engine.find(spec)
read_with(SqliteStrategy(spec, found, (), runtime_of(engine, state)), spec, found)
"""


@pytest.mark.parametrize("victim", ["backupd", "helper"])
def test_killed_in_mid_copy(
    victim: str,
    docker_host: Host,
    docker_client: docker.DockerClient,
    make_docker_engine: Callable[..., DockerEngine],
    helper_image: str,
    make_volume: Callable[..., str],
    volume_root: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    """What SQLite made beside the database belongs to its owner, and what backupd made is removed by the next one."""
    name = make_volume()
    root = volume_root(name)
    os.chown(root, OWNER, OWNER)
    fill(root / "a.db", mebibytes=250).close()
    arguments = ["docker", name, str(tmp_path), docker_host.url, helper_image]
    with subprocess.Popen([sys.executable, "-c", JOB, *arguments], stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while not (root / "a.db-shm").exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.001)
        if victim == "backupd":
            process.kill()
        for helper in helper_names(docker_client):
            docker_client.containers.get(helper).kill()
        process.wait()
    assert {path.stat().st_uid for path in root.iterdir()} == {OWNER}
    assert "a.db-shm" in names(root), "the kill came too late to show anything"
    engine = make_docker_engine(pipe_directory=tmp_path / "pipes")
    removed = engine.remove_leftovers()
    if victim == "backupd":
        assert any(line.startswith("scratch volume backupd-scratch-") for line in removed)
    assert helper_names(docker_client) == []
    assert docker_client.volumes.list(filters=SCRATCH) == []
    spec = VolumeSpec("v", consistency="sqlite")
    volume = engine.find(VolumeSpec("v", volume=name))
    assert read_with(SqliteStrategy(spec, volume, (), runtime_of(engine, tmp_path)), spec, volume).report.warnings == ()


def test_killed_in_mid_copy_without_docker(tmp_path: Path) -> None:
    root = tmp_path / "volume"
    root.mkdir()
    opened_up(root)
    os.chown(root, OWNER, OWNER)
    fill(root / "a.db", mebibytes=250).close()
    arguments = ["mounted", str(root), str(tmp_path), "", ""]
    with subprocess.Popen([sys.executable, "-c", JOB, *arguments], stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while not (root / "a.db-shm").exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.001)
        process.kill()
    assert {path.stat().st_uid for path in root.iterdir()} == {OWNER}
    engine = MountedEngine(tmp_path / "scratch")
    time.sleep(0.2)  # for the copying processes to die with their parent
    assert any("scratch directory" in line for line in engine.remove_leftovers())
    assert [path.name for path in (tmp_path / "scratch").iterdir() if path.is_dir()] == []
    engine.close()
