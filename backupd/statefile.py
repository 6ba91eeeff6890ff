"""Files that are legible to their owner alone, and small ones of the state directory that several processes change."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from backupd.errors import SourceError


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the file's lock while the block runs; makes the directory. SourceError if that can't be."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise SourceError(f"cannot write {path}: {exc.strerror}", hint="run as the user who owns it") from exc
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def make_private(path: Path) -> None:
    """Make an empty file that is legible to its owner alone, and its directory, for SQLite; OSError if it can't be."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(FileExistsError):
        new_private(path).close()


def new_private(path: Path) -> BinaryIO:
    """A new file to write, legible to its owner alone; OSError if it is there already, or can't be made."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")


def write_private(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Put the data in the place of the file, whole and legible to its owner alone; `durable`: and on disk."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial.unlink(missing_ok=True)
        with new_private(partial) as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        partial.replace(path)
    except OSError as exc:
        raise SourceError(f"cannot write {path}: {exc.strerror}", hint="run as the user who owns it") from exc


def read_private(path: Path) -> bytes | None:
    """The file's content, None if there is none."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise SourceError(f"cannot read {path}: {exc.strerror}", hint="run as the user who owns it") from exc
