"""One daemon a state directory."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from backupd.errors import LockedError, SourceError


@contextmanager
def daemon_lock(state: Path, now: datetime) -> Iterator[None]:
    """Be the state directory's daemon while the block runs; LockedError, saying who is, if another one is.

    An advisory lock: the kernel lets go of it when the process dies, however it dies.
    """
    path = state / "daemon.lock"
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise SourceError(f"cannot write {path}: {exc.strerror}", hint="run as the user who owns it") from exc
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "unknown"
            raise LockedError(
                f"a daemon runs already with {state}: {owner}", hint="give each daemon a state_dir of its own"
            ) from None
        os.truncate(descriptor, 0)
        who = f"process {os.getpid()} on {socket.gethostname()}, since {now:%Y-%m-%d %H:%M:%S} UTC"
        os.pwrite(descriptor, f"{who}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
