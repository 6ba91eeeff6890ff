"""Keeps two backupd processes of one machine off the same volume."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backupd.errors import LockedError, SourceError
from backupd.model import Volume


@contextmanager
def volume_lock(directory: Path, volume: Volume) -> Iterator[None]:
    """Hold the volume while the block runs; LockedError at once if another process holds it.

    An advisory `flock` on a file of `directory`: the kernel lets go of it when the process dies, however it dies.
    SourceError if there can be no such file.
    """
    source = os.path.realpath(volume.source) if volume.kind == "directory" else volume.source
    name = hashlib.sha256(os.fsencode(f"{volume.kind}:{source}")).hexdigest()[:32]
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(directory / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise SourceError(
            f"cannot lock volume {volume.name} in {directory}: {exc.strerror}", hint="may this user write there?"
        ) from exc
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            owner = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            raise LockedError(
                f"volume {volume.name} is being worked on by another backupd (process {owner})",
                hint="wait until it is done",
            ) from exc
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
