"""Copies one SQLite database, with nothing but Python 3.8 and its sqlite3 module.

It is opened by its owner's user in a process of its own, as its application opens it: what SQLite creates beside it
(`-wal`, `-shm`) then belongs to the owner, also if all of this is killed. A database in WAL mode is copied by SQLite's
online backup in one step, which holds up nobody. One with a rollback journal cannot be written while it is read, so it
is copied twice: first as it is, then, under a lock, what differs from that.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import sqlite3
import stat
import time
from urllib.parse import quote

WAL_VERSION = b"\2"
BLOCK = 1 << 18
BUSY = (5, 6)  # SQLITE_BUSY, SQLITE_LOCKED
RAW_ATTEMPTS = 5
DAMAGED = "is damaged"
PR_SET_PDEATHSIG = 1
KILL = 9


class Refused(Exception):  # noqa: N818
    """A database cannot be copied, and it would be wrong to go on without it."""


class Locked(Refused):
    """Its application does not let go of it."""


class NoDatabase(Exception):  # noqa: N818
    """It only looks like one, or is damaged beyond copying."""


def uri(path: str, mode: str, **more: str) -> str:
    """A path as SQLite takes it with parameters; any bytes may be in it."""
    return f"file:{quote(os.fsencode(path))}?mode={mode}" + "".join(f"&{key}={value}" for key, value in more.items())


def copy_in_child(source: str, target: str, patience: float, *, as_owner: bool) -> None:
    """Copy in a process of its own, which becomes the database's owner if it is to."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        answer = {"kind": "done"}
        try:
            _copy(source, target, patience, as_owner=as_owner)
        except NoDatabase as exc:
            answer = {"kind": "none", "text": str(exc)}
        except FileNotFoundError:
            answer = {"kind": "gone"}
        except BaseException as exc:
            kind = "locked" if isinstance(exc, Locked) else "refused"
            answer = {"kind": kind, "text": f"{exc}" or type(exc).__name__}
        os.write(writer, json.dumps(answer).encode())
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    answer = json.loads(said or '{"kind": "refused", "text": "the copying process was killed"}')
    if answer["kind"] == "gone":
        raise FileNotFoundError(source)
    if answer["kind"] != "done":
        raise {"none": NoDatabase, "locked": Locked}.get(answer["kind"], Refused)(answer["text"])


def _copy(source: str, target: str, patience: float, *, as_owner: bool) -> None:
    """Open the target with this process's rights, then the source with its owner's."""
    with open(target, "w+b", buffering=0) as plain, contextlib.closing(_target(target)) as copy:
        die_with_parent()
        raw = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)  # it may be a pipe by now
        try:
            is_wal = os.pread(raw, 1, 18) == WAL_VERSION
            if not is_wal:
                differing(raw, plain.fileno())
            for path in (source, f"{source}-journal"):  # SQLite opens both, and waits at a pipe for ever
                if os.path.lexists(path) and not stat.S_ISREG(os.lstat(path).st_mode):
                    raise Refused(f"{os.path.basename(path)} is no file")
            if as_owner:
                become(os.fstat(raw))
            for mode in ("rw", "ro"):
                try:
                    with contextlib.closing(sqlite3.connect(uri(source, mode), uri=True, timeout=patience)) as database:
                        if is_wal:
                            back_up(database, copy, patience)
                        else:
                            copy_locked(database, raw, plain.fileno())
                        return
                except sqlite3.Error as exc:
                    if mode == "ro" or not is_about_rights(exc):
                        raise explained(exc, patience) from exc
        finally:
            os.close(raw)  # last: closing any descriptor of a file gives up all of a process's locks on it


def _target(path: str) -> sqlite3.Connection:
    """A new database that nobody else uses and that is thrown away after a crash."""
    connection = sqlite3.connect(uri(path, "rwc", vfs="unix-none"), uri=True, isolation_level=None)
    connection.execute("PRAGMA journal_mode = OFF")
    connection.execute("PRAGMA synchronous = OFF")
    return connection


def back_up(database: sqlite3.Connection, copy: sqlite3.Connection, patience: float) -> None:
    """SQLite's online backup in one step. Python alone would wait for ever where the database is locked."""
    deadline = time.monotonic() + patience

    def progress(status: int, _remaining: int, _total: int) -> None:
        if status in BUSY and time.monotonic() > deadline:
            raise sqlite3.OperationalError("database is locked")

    database.backup(copy, pages=-1, progress=progress, sleep=0.02)


def copy_locked(database: sqlite3.Connection, raw: int, plain: int) -> None:
    """Bring an earlier copy up to date while a read transaction keeps writers out of the file."""
    database.isolation_level = None
    database.execute("BEGIN")
    database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if os.pread(raw, 1, 18) == WAL_VERSION:
        raise sqlite3.OperationalError("the database changed its journal mode just now")
    differing(raw, plain)
    database.execute("COMMIT")


def differing(source: int, target: int) -> None:
    """Make a file like another, writing only what differs."""
    position = 0
    while block := os.pread(source, BLOCK, position):
        if os.pread(target, len(block), position) != block and os.pwrite(target, block, position) != len(block):
            raise OSError("no room is left for the copy")
        position += len(block)
    os.ftruncate(target, position)


def copy_raw(source: str, target: str, scratch: str) -> None:
    """Copy the files of a database that cannot be opened where it is, and let SQLite recover the copy.

    For read-only file systems, and after a crash. Refused if a file changes meanwhile.
    """
    private = os.path.join(scratch, "raw")
    for _ in range(RAW_ATTEMPTS):
        shutil.rmtree(private, ignore_errors=True)
        os.mkdir(private, 0o700)
        before = _states(source)
        for suffix in ("", "-wal", "-journal"):
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(source + suffix, os.path.join(private, "db" + suffix), follow_symlinks=False)
        if before == _states(source):
            break
    else:
        raise Refused("it is being written, and cannot be locked from here")
    try:
        with contextlib.closing(sqlite3.connect(os.path.join(private, "db"))) as database:
            database.execute("SELECT count(*) FROM sqlite_master").fetchone()
            with contextlib.closing(_target(target)) as copy:
                database.backup(copy, pages=-1)
    except sqlite3.Error as exc:
        raise explained(exc, 0) from exc
    finally:
        shutil.rmtree(private, ignore_errors=True)


def _states(source: str) -> list[tuple[int, ...]]:
    states: list[tuple[int, ...]] = []
    for suffix in ("", "-wal", "-journal"):
        try:
            status = os.stat(source + suffix)
            states.append((status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
        except FileNotFoundError:
            states.append(())
    return states


def is_about_rights(exc: sqlite3.Error) -> bool:
    """Whether less demanding ways to open the database are worth a try."""
    return any(words in str(exc) for words in ("readonly", "unable to open", "access permission", "disk I/O error"))


def explained(exc: sqlite3.Error, patience: float) -> Exception:
    """What an error of SQLite's means here."""
    text = str(exc)
    if "not a database" in text or "malformed" in text or "encrypted" in text:
        return NoDatabase(text)
    if "locked" in text:
        return Locked(f"it has been locked by its application for {patience:g} s")
    return Refused(text)


def become(status: os.stat_result) -> None:
    """Take on the owner's user and group where this process may."""
    if os.geteuid() == 0 and (status.st_uid or status.st_gid):
        with contextlib.suppress(PermissionError):
            os.setgroups([])
        with contextlib.suppress(PermissionError):  # SQLite gives what it creates as root to the database's owner
            os.setgid(status.st_gid)
            os.setuid(status.st_uid)
            die_with_parent()


def die_with_parent() -> None:
    """Be killed when the parent is. A change of user takes this back."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, KILL)


def complaint(path: str) -> str:
    """What `PRAGMA quick_check` has against a copy; empty if nothing."""
    try:
        with contextlib.closing(sqlite3.connect(uri(path, "ro", immutable="1"), uri=True)) as copy:
            said = [str(row[0]) for row in copy.execute("PRAGMA quick_check(1)")]
    except sqlite3.Error as exc:
        return f"could not be checked: {exc}"
    return "" if said == ["ok"] else f"{DAMAGED}: {' '.join(said[0].split()) if said else 'quick_check says nothing'}"


def dress(source: os.stat_result, path: str, target: str) -> None:
    """Give a copy its original's owner, mode, attributes and times."""
    with contextlib.suppress(OSError):  # a file system without attributes
        for name in os.listxattr(path, follow_symlinks=False):
            with contextlib.suppress(OSError):  # some are for the kernel alone to set
                os.setxattr(target, name, os.getxattr(path, name, follow_symlinks=False), follow_symlinks=False)
    if os.geteuid() == 0:
        os.chown(target, source.st_uid, source.st_gid)  # from here on attributes would take a right to write
    os.chmod(target, stat.S_IMODE(source.st_mode))
    os.utime(target, ns=(source.st_mtime_ns, source.st_mtime_ns))


def copy_somehow(source: str, target: str, scratch: str, patience: float) -> None:
    """As the owner; if that one may not open it (a directory above is closed to all but root), as who we are."""
    for as_owner in (True, False):
        try:
            return copy_in_child(source, target, patience, as_owner=as_owner)
        except Locked:
            raise
        except Refused:
            continue
    return copy_raw(source, target, scratch)


def copy_one(root: str, path: str, scratch: str, patience: float) -> dict[str, object]:
    """Copy one database; what became of it."""
    source, target = os.path.join(root, path), os.path.join(scratch, "copies", path)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    try:
        copy_somehow(source, target, scratch, patience)
        remark = complaint(target)
        dress(os.lstat(source), source, target)
    except (NoDatabase, FileNotFoundError) as exc:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(target)
        if isinstance(exc, FileNotFoundError):
            return {"path": path, "state": "gone"}
        remark = f"looks like a database, but {exc}"
        return {"path": path, "state": "file", "remark": remark, "damaged": "malformed" in remark}
    return {"path": path, "state": "copied", "remark": remark, "damaged": remark.startswith(DAMAGED)}
