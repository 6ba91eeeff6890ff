"""Copies all SQLite databases below a directory: a program that runs where the volume is.

Arguments: options as JSON, the directory, and one for the copies. On stdout comes a JSON line for each database.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import sys

from backupd.consistency.sqlite_copy import Refused, copy_one, die_with_parent
from backupd.consistency.sqlite_files import databases

SPARE_BYTES = 64 << 20


def copy(root: str, scratch: str, exclude: list[str], patience: float) -> None:
    """Copy all of them, if there is room for all."""
    paths = sorted(databases(root, exclude))
    needed = sum(room(os.path.join(root, path)) for path in paths)
    free = os.statvfs(scratch)
    if paths and needed + SPARE_BYTES > free.f_bavail * free.f_frsize:
        mib = f"{needed >> 20} MiB, and there are {free.f_bavail * free.f_frsize >> 20} MiB"
        raise Refused(f"the copies of {len(paths)} databases take up to {mib}")
    for path in paths:
        try:
            say(copy_one(root, path, scratch, patience))
        except Refused as exc:
            raise Refused(f"{path}: {exc}") from exc


def room(path: str) -> int:
    """The most that a database's copy can take."""
    total = 0
    for suffix in ("", "-wal"):
        with contextlib.suppress(FileNotFoundError):
            total += os.lstat(path + suffix).st_size
    return total


def say(what: dict[str, object]) -> None:
    """One line of the answer."""
    print(json.dumps(what), flush=True)


def main() -> int:
    """See the module's description."""
    options, root, scratch = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3]
    os.umask(0o077)
    if options["bound"]:
        die_with_parent()
    try:
        copy(root, scratch, options["exclude"], options["patience"])
    except (Refused, OSError, sqlite3.Error) as exc:
        print(" ".join(str(exc).split()), file=sys.stderr)
        return 1
    return 0
