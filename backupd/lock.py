"""Keeps two backupd processes of one machine off the same volume, and off the same service."""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backupd.errors import LockedError, SourceError
from backupd.model import Volume
from backupd.services import Service

_POLL_SECONDS = 0.1


@contextmanager
def volume_lock(directory: Path, volume: Volume) -> Iterator[None]:
    """Hold the volume while the block runs; LockedError at once if another process holds it.

    An advisory `flock` on a file of `directory`: the kernel lets go of it when the process dies, however it dies.
    SourceError if there can be no such file.
    """
    source = os.path.realpath(volume.source) if volume.kind == "directory" else volume.source
    with _lock(directory, f"{volume.kind}:{source}", f"volume {volume.name}", 0):
        yield


@contextmanager
def service_lock(directory: Path, service: Service, patience_seconds: float = 600) -> Iterator[None]:
    """Hold the right to stop and start a service; waits for another process that has it, then LockedError.

    The same lock as `volume_lock` otherwise.
    """
    with _lock(directory, f"service:{service.id}", f"container {service.name}", patience_seconds):
        yield


@contextmanager
def token_lock(directory: Path, token: str) -> Iterator[None]:
    """Say that this process lives and will do what the journal has under this token; LockedError at once if it does."""
    with _lock(directory, f"token:{token}", "what has been journaled", 0):
        yield


@contextmanager
def drill_lock(directory: Path, drill: str) -> Iterator[None]:
    """Held by a drill as long as it lasts; LockedError at once for everybody else. The same lock as `volume_lock`."""
    with _lock(directory, f"drill:{drill}", f"drill {drill}", 0):
        yield


@contextmanager
def _lock(directory: Path, key: str, what: str, patience_seconds: float) -> Iterator[None]:
    name = hashlib.sha256(os.fsencode(key)).hexdigest()[:32]
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(directory / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise SourceError(
            f"cannot lock {what} in {directory}: {exc.strerror}", hint="may this user write there?"
        ) from exc
    try:
        _take(descriptor, what, patience_seconds)
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _take(descriptor: int, what: str, patience_seconds: float) -> None:
    deadline = time.monotonic() + patience_seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            if time.monotonic() < deadline:
                time.sleep(_POLL_SECONDS)
                continue
            owner = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            raise LockedError(
                f"{what} is being worked on by another backupd (process {owner})", hint="wait until it is done"
            ) from exc
        return
