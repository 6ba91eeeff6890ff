"""Finds SQLite databases below a directory by what they begin with, whatever they are called. Python 3.8 will do."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from fnmatch import fnmatchcase

MAGIC = b"SQLite format 3\0"
SMALLEST_PAGE = 512
FRACTIONS = bytes((64, 32, 32))
HEADER_BYTES = 24
STAGING = (".backupd-restore-", ".backupd-old-", ".backupd-clone-")
SIDE_FILES = ("-wal", "-shm", "-journal")


def databases(root: str, exclude: list[str]) -> Iterator[str]:
    """The paths, relative to the root, of regular files that begin as SQLite databases do.

    A database is a whole number of pages, so only files of such sizes have to be opened.
    """
    waiting = [""]
    while waiting:
        directory = waiting.pop()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            entries = sorted(os.scandir(os.path.join(root, directory)), key=lambda entry: entry.name)
            for entry in entries:
                path = os.path.join(directory, entry.name)
                if (not directory and entry.name.startswith(STAGING)) or is_excluded(path, exclude):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(path)
                elif entry.is_file(follow_symlinks=False) and looks_like_one(os.path.join(root, path)):
                    yield path


def looks_like_one(path: str) -> bool:
    """Whether a file begins as a database does. Never called while this process has the database open: see fcntl(2).

    Its header is looked at as SQLite would, lest SQLite be shown, and delete, a journal that is none.
    """
    try:
        size = os.lstat(path).st_size
        return size >= SMALLEST_PAGE and size % SMALLEST_PAGE == 0 and is_header(_head(path))
    except FileNotFoundError:
        return False


def is_header(data: bytes) -> bool:
    """Whether this is a database header: magic, page size, format versions, payload fractions (SQLite, file format)."""
    page = int.from_bytes(data[16:18], "big")
    return (
        data.startswith(MAGIC)
        and (page == 1 or (page >= SMALLEST_PAGE and page & (page - 1) == 0))
        and set(data[18:20]) <= {1, 2}
        and data[21:HEADER_BYTES] == FRACTIONS
    )


def _head(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return os.read(descriptor, HEADER_BYTES)
    finally:
        os.close(descriptor)


def is_excluded(path: str, patterns: list[str]) -> bool:
    """As tar's exclude patterns do it: without a slash a name at any depth, with one a path from the root."""
    parts = path.split("/")
    for pattern in patterns:
        wanted = [part for part in pattern.split("/") if part not in {"", "."}]
        if "/" not in pattern:
            if any(fnmatchcase(part, pattern) for part in parts):
                return True
        elif len(wanted) <= len(parts) and all(map(fnmatchcase, parts, wanted)):
            return True
    return False
