"""File system calls that the local store is made of: durable directories, publishing without replacing, locks."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backupd.errors import IntegrityError, StoreDenied, StoreError, StoreFull, StoreUnavailable

DIRECTORY_MODE = 0o700
FILE_MODE = 0o600

_FULL = {errno.ENOSPC, errno.EDQUOT}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
_AWAY = {errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENOTCONN}  # network file systems
_DAMAGED = {errno.EIO, errno.EBADMSG, errno.EUCLEAN}  # bad sectors, checksums of file systems that do not fit
_UNSUPPORTED = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EMLINK}
_AT_FDCWD = -100  # <fcntl.h>
_RENAME_NOREPLACE = 1  # <linux/fs.h>


@contextmanager
def os_errors(store: str, action: str, *, reading: bool = False) -> Iterator[None]:
    """Turn an OSError into the StoreError that it means, saying which store and what was being done.

    With `reading`, what the disk can't give back is an IntegrityError: the object is damaged, others may not be.
    """
    try:
        yield
    except OSError as exc:
        message = f"store {store}: {action}: {exc.strerror or exc}"
        if reading and exc.errno in _DAMAGED:
            raise IntegrityError(message) from exc
        if exc.errno in _FULL:
            raise StoreFull(
                message, hint="free some space; `backupd recover` removes what killed backups left unfinished"
            ) from exc
        if exc.errno in _DENIED:
            raise StoreDenied(message, hint="may this user write there, and is it mounted read-write?") from exc
        if exc.errno in _AWAY:
            raise StoreUnavailable(message, hint="does the file server answer?") from exc
        raise StoreError(message) from exc


def boot_id() -> str:
    """Tells this machine, since it was started, from every other: 8 hex digits, the same in all of its containers."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
    except OSError:
        return secrets.token_hex(4)  # whose files will not be known again


def make_directory(path: Path) -> None:
    """Make `path` and whatever is missing above it, mode 0700, and make their entries durable."""
    try:
        path.mkdir(DIRECTORY_MODE)
    except FileExistsError:
        if not path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "not a directory", str(path)) from None
        return
    except FileNotFoundError:
        make_directory(path.parent)
        make_directory(path)
        return
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make the entries of a directory durable, where the file system has such a thing (FUSE and CIFS may not)."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as exc:
        if exc.errno not in {errno.EINVAL, errno.EOPNOTSUPP}:
            raise
    finally:
        os.close(descriptor)


def publish(source: Path, target: Path) -> str:
    """Give `source` the name `target`, durably; FileExistsError if that is taken. Returns the way it was done.

    `link` and `renameat2` decide atomically. File systems that have neither (some FUSE ones) get `rename` after a
    look, where two writers at the same moment may both succeed.
    """
    way = _publish(source, target)
    try:
        sync_directory(target.parent)
    except OSError:
        target.unlink()
        raise
    return way


def _publish(source: Path, target: Path) -> str:
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError as exc:
        if exc.errno not in _UNSUPPORTED:
            raise
    else:
        source.unlink()
        return "link"
    try:
        _rename_noreplace(source, target)
    except FileExistsError:
        raise
    except OSError as exc:
        if exc.errno not in _UNSUPPORTED:
            raise
    else:
        return "renameat2"
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, "exists", str(target))
    source.rename(target)
    return "rename"


def _rename_noreplace(source: Path, target: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        raise OSError(errno.ENOSYS, "no renameat2 in this C library")
    if libc.renameat2(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), _RENAME_NOREPLACE) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(target))


def try_lock(descriptor: int) -> bool | None:
    """Lock a file until its descriptor is closed; False if another holds it, None where there are no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as exc:
        if exc.errno not in {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS}:
            raise
        return None
    return True
