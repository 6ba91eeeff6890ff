"""Volumes whose databases lead out of them: the mounted engine's copying of SQLite's files does not follow."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from backupd.consistency.remote import program
from backupd.engine import MountedEngine, within
from backupd.engine.confine import PYTHON, why_unconfined
from backupd.errors import SourceError
from backupd.model import Volume
from tests.support.daemon import wait_until
from tests.support.engines import opened_up
from tests.support.sqlite import OWNER, give
from tools.fingerprint import fingerprint

SECRET = "of another volume"
MODES = ["wal", "delete"]
MODULES = ("sqlite_files", "sqlite_copy", "sqlite_program")

# Does what a service does that shares the volume, at the worst moment: just before `d/a.db` is opened in that way.
SWAP = """
import os, sys
root, outside, moment = {root!r}, {outside!r}, {moment!r}
def swap(event, arguments):
    global moment
    if event == moment and f"{{root}}/d/a.db" in os.fsdecode(arguments[0]):
        moment = ""
        os.rename(f"{{root}}/d", f"{{root}}/aside")
        os.symlink(outside, f"{{root}}/d")
sys.addaudithook(swap)
"""

# The same, of one file, when SQLite has been refused and files are copied as they are.
RAW = """
import os, sqlite3, sys
link, target = {link!r}, {target!r}
connect = sqlite3.connect
def refuse(path, **options):
    if "?mode=rw" in path and "rwc" not in path or "?mode=ro" in path and "immutable" not in path:
        raise sqlite3.OperationalError("unable to open database file")
    return connect(path, **options)
sqlite3.connect = refuse
def swap(event, arguments):
    if event == "shutil.copyfile" and arguments[0] == link and not os.path.islink(link):
        os.unlink(link)
        os.symlink(target, link)
sys.addaudithook(swap)
"""


@pytest.fixture(autouse=True)
def landlock() -> None:
    if why := why_unconfined(PYTHON):
        pytest.skip(f"the sidecar's own files are not guarded: {why}")


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory that the databases' owner may write, as that of another volume may be."""
    opened_up(tmp_path)
    return directory_of(tmp_path / "outside")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return directory_of(tmp_path / "volume")


def directory_of(path: Path) -> Path:
    path.mkdir()
    if os.geteuid() == 0:
        os.chown(path, OWNER, OWNER)
    return path


def database(path: Path, mode: str, text: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA journal_mode = {mode}")
        with connection:
            connection.execute("CREATE TABLE t (text TEXT)")
            connection.execute("INSERT INTO t VALUES (?)", (text,))
    if os.geteuid() == 0:
        give(path)


def copies(root: Path, before: str = "") -> dict[str, bytes]:
    """What the copying has made when it is done or has given up; `before` is run first, in its process."""
    options = json.dumps({"exclude": [], "patience": 1, "bound": True})
    isolated, command, code, modules = program(MODULES)
    engine = MountedEngine()
    volume = Volume(name="v", kind="directory", source=str(root))
    with engine.scratch() as scratch:
        with suppress(SourceError):  # to refuse is as good
            engine.run_python([isolated, command, before + code, modules, options], volume, scratch)
        made = Path(scratch.source)
        return {str(path.relative_to(made)): path.read_bytes() for path in made.rglob("*") if path.is_file()}


def swapped(root: Path, outside: Path, moment: str) -> dict[str, bytes]:
    made = copies(root, SWAP.format(root=str(root), outside=str(outside), moment=moment))
    assert (root / "d").is_symlink(), "it came too late"
    return made


def unguarded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backupd.engine.confine.why_unconfined", lambda _: "to see what would be lost")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("moment", ["open", "sqlite3.connect"])
def test_a_directory_that_becomes_a_link_in_mid_copy(root: Path, outside: Path, mode: str, moment: str) -> None:
    directory_of(root / "d")
    database(root / "d" / "a.db", mode, "of this volume")
    database(outside / "a.db", mode, SECRET)
    untouched = fingerprint(outside)
    made = swapped(root, outside, moment)
    assert not any(SECRET.encode() in data for data in made.values())
    assert fingerprint(outside) == untouched


@pytest.mark.parametrize("mode", MODES)
def test_that_attack_succeeds_where_nothing_is_confined(
    root: Path, outside: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the test above is known to try something."""
    directory_of(root / "d")
    database(root / "d" / "a.db", mode, "of this volume")
    database(outside / "a.db", mode, SECRET)
    unguarded(monkeypatch)
    assert SECRET.encode() in swapped(root, outside, "open")["copies/d/a.db"]


def link_to_a_database(root: Path, outside: Path) -> None:
    database(outside / "secret", "wal", SECRET)
    (root / "a.db").symlink_to(outside / "secret")


def link_to_a_log(root: Path, outside: Path) -> None:
    """That of a database of the same pages, as its application left it when it was killed."""
    left_behind(root / "a.db", outside, "wal")


def link_to_a_journal(root: Path, outside: Path) -> None:
    left_behind(root / "a.db", outside, "delete")


def left_behind(path: Path, outside: Path, mode: str) -> None:
    suffix = "-wal" if mode == "wal" else "-journal"
    database(path, mode, "of this volume")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        if mode == "wal":
            connection.execute("INSERT INTO t VALUES (?)", (SECRET,))
        else:
            connection.execute("UPDATE t SET text = ?", (SECRET,))
            connection.execute("PRAGMA cache_size = 1")
            connection.execute("PRAGMA cache_spill = 1")
            connection.execute("BEGIN")
            connection.execute("UPDATE t SET text = 'of this volume'")
            connection.execute("CREATE TABLE more AS SELECT randomblob(4096) FROM t, t, t")
            connection.executemany("INSERT INTO more VALUES (randomblob(?))", [(4096,)] * 50)
        stays = {name: Path(f"{path}{name}").read_bytes() for name in ("", suffix)}
    for side in path.parent.glob(f"{path.name}*"):
        side.unlink()
    path.write_bytes(stays[""])
    (outside / "secret").write_bytes(stays[suffix])
    assert SECRET.encode() in stays[suffix]
    Path(f"{path}{suffix}").symlink_to(outside / "secret")
    if os.geteuid() == 0:
        give(path)


@pytest.mark.parametrize("hostile", [link_to_a_database, link_to_a_log, link_to_a_journal])
def test_what_is_a_link_from_the_beginning(root: Path, outside: Path, hostile: Callable[[Path, Path], None]) -> None:
    hostile(root, outside)
    untouched = fingerprint(outside)
    made = copies(root)
    assert not any(SECRET.encode() in data for data in made.values())
    assert fingerprint(outside) == untouched


@pytest.mark.parametrize("suffix", ["", "-wal", "-journal"])
def test_what_becomes_a_link_when_it_is_copied_file_by_file(root: Path, outside: Path, suffix: str) -> None:
    """As it is where SQLite cannot open it."""
    link_to_a_journal(root, outside) if suffix == "-journal" else link_to_a_log(root, outside)
    if not suffix:
        database(outside / "whole", "delete", SECRET)
        (outside / "whole").rename(outside / "secret")
    for side in root.glob("a.db-*"):
        side.unlink()
        side.touch()
    untouched = fingerprint(outside)
    made = copies(root, RAW.format(link=str(root / f"a.db{suffix}"), target=str(outside / "secret")))
    assert (root / f"a.db{suffix}").is_symlink(), "it came too late"
    assert not any(SECRET.encode() in data for data in made.values())
    assert fingerprint(outside) == untouched


GIVE_UP = """
import os, signal, sys
def give_up(*_):
    open("waited", "w").close()
    os._exit(1)
signal.signal(signal.SIGALRM, give_up)
signal.alarm(20)
"""

PIPE = (
    GIVE_UP
    + """
path, opened = {path!r}, 0
def swap(event, arguments):
    global opened
    if event == "open" and arguments[0] == path:
        opened += 1
        if opened != 2:  # the first is the look
            return
        os.unlink(path)
        os.mkfifo(path)
sys.addaudithook(swap)
"""
)


def test_a_database_that_becomes_a_pipe_is_not_waited_for(root: Path) -> None:
    """Between the look at what is there and the copying: nobody ever writes to it."""
    database(root / "a.db", "wal", "of this volume")
    assert not any(copies(root, PIPE.format(path=str(root / "a.db"))).values())
    assert not (root / "waited").exists()
    assert (root / "a.db").is_fifo(), "it came too late"


@pytest.mark.parametrize("mode", MODES)
def test_a_pipe_in_the_place_of_a_journal_is_not_waited_for(root: Path, mode: str) -> None:
    database(root / "a.db", mode, "of this volume")
    os.mkfifo(root / "a.db-journal")
    copies(root, GIVE_UP)
    assert not (root / "waited").exists()


def test_copies_are_made_where_jobs_are_confined(root: Path) -> None:
    for mode in MODES:
        database(root / f"{mode}.db", mode, "of this volume")
    made = copies(root)
    assert set(made) == {"copies/wal.db", "copies/delete.db"}
    assert all(b"of this volume" in data for data in made.values())


def test_what_dies_with_its_parent_outlives_its_start(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel takes the thread that started a process for its parent: it must not end before the process does."""
    start = within._start_in

    def linger(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        process = start(*arguments, **options)
        wait_until((root / "asked").exists, "the wish to die with the parent")
        return process

    monkeypatch.setattr("backupd.engine.within._start_in", linger)
    act = "import ctypes, time; ctypes.CDLL(None).prctl(1, 9); open('asked', 'w'); time.sleep(0.5); print('lives')"
    engine = MountedEngine()
    with engine.scratch() as scratch:
        volume = Volume(name="v", kind="directory", source=str(root))
        assert engine.run_python(["-I", "-c", act], volume, scratch) == "lives\n"
