"""Keeps two backupd processes of one machine off the same volume, and off the same service."""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from backupd.errors import LockedError, SourceError
from backupd.model import Volume
from backupd.services import Service

_POLL_SECONDS = 0.1

Waiting = Callable[[str], None]


@contextmanager
def volume_lock(
    directory: Path, volume: Volume, patience_seconds: float = 0, waiting: Waiting | None = None
) -> Iterator[None]:
    """Hold the volume while the block runs; LockedError if another process holds it for longer than that.

    `waiting` is told, once, when there is something to wait for.

    An advisory `flock` on a file of `directory`: the kernel lets go of it when the process dies, however it dies.
    SourceError if there can be no such file.
    """
    with _lock(directory, lock_key(volume), f"volume {volume.name}", patience_seconds, waiting):
        yield


def lock_key(volume: Volume) -> str:
    """What a volume is locked as. Who locks several, and waits, does so in this order, so that no two wait for ever."""
    source = os.path.realpath(volume.source) if volume.kind == "directory" else volume.source
    return f"{volume.kind}:{source}"


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
def _lock(
    directory: Path, key: str, what: str, patience_seconds: float, waiting: Waiting | None = None
) -> Iterator[None]:
    path = directory / f"{hashlib.sha256(os.fsencode(key)).hexdigest()[:32]}.lock"
    descriptor = _taken(path, what, patience_seconds, waiting)
    try:
        with suppress(OSError):  # for people; on a full disk the lock holds without it
            os.truncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is held: who waits for it looks whether it is still the file
        os.close(descriptor)


def remove_unlocked(directory: Path) -> None:
    """Remove the files of locks that killed processes held."""
    for path in directory.glob("*.lock"):
        with suppress(LockedError):
            descriptor = _taken(path, str(path), 0)
            path.unlink(missing_ok=True)
            os.close(descriptor)


def _taken(path: Path, what: str, patience_seconds: float, waiting: Waiting | None = None) -> int:
    deadline = time.monotonic() + patience_seconds
    while True:
        descriptor = _opened(path, what)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_still(path, descriptor):
                return descriptor
            os.close(descriptor)
        except BlockingIOError as exc:
            owner = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            held = f"{what} is being worked on by another backupd (process {owner})"
            if time.monotonic() >= deadline:
                raise LockedError(
                    held, hint="wait until it is done; `backupd schedule` shows what a daemon is at"
                ) from exc
            if waiting is not None:
                waiting(f"{held}: waiting")
                waiting = None
            time.sleep(_POLL_SECONDS)
        except BaseException:
            os.close(descriptor)
            raise


def _opened(path: Path, what: str) -> int:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise SourceError(
            f"cannot lock {what} in {path.parent}: {exc.strerror}", hint="may this user write there?"
        ) from exc


def _is_still(path: Path, descriptor: int) -> bool:
    """Whether the file has not been removed by who held it before."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
