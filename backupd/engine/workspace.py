"""The corner of the file system where jobs have their pipes and copies, and where processes show that they live.

<directory>/home              a random id: helpers of processes that share this directory carry it as a label
<directory>/<owner>.lock      locked by a living process
<directory>/<owner>.<job>/    with that job's `pipe` in it; helpers of other users than root have to get at it
<directory>/<owner>.<job>/    or a scratch directory, which is nobody else's
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

from backupd.errors import SourceError

PIPE_NAME = "pipe"
PIPE_MODE = 0o622  # the helper's root may be mapped to another user, or lack the right to override modes


class Workspace:
    """One process's share of the directory. Nothing is created before it is needed. Thread-safe."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.owner = uuid.uuid4().hex
        self._home: str | None = None
        self._lock_descriptor = -1
        self._opening = threading.Lock()

    def home(self) -> str:
        """The directory's id; creates the directory and this process's lock."""
        with self._opening:
            if self._home is None:
                try:
                    self._home = self._open()
                except OSError as exc:
                    raise SourceError(
                        f"cannot use {self.directory} for pipes and copies: {exc.strerror}",
                        hint="it has to be a directory that this process may write",
                    ) from exc
            return self._home

    def _open(self) -> str:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        home = self.directory / "home"
        with contextlib.suppress(FileExistsError), home.open("x") as file:
            file.write(uuid.uuid4().hex)
        self._lock_descriptor = os.open(self._lock_path(self.owner), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock_descriptor, fcntl.LOCK_EX)
        return home.read_text()

    @contextlib.contextmanager
    def pipe(self, job: str) -> Iterator[Path]:
        """A fresh FIFO, removed with its directory at the end."""
        self.home()
        directory = self.job_directory(job)
        directory.mkdir(mode=0o711)
        try:
            pipe = directory / PIPE_NAME
            os.mkfifo(pipe)
            pipe.chmod(PIPE_MODE)
            yield pipe
        finally:
            shutil.rmtree(directory)

    @contextlib.contextmanager
    def scratch(self, job: str) -> Iterator[Path]:
        """An empty directory, removed with all that is in it at the end."""
        self.home()
        directory = self.job_directory(job)
        directory.mkdir(mode=0o700)
        try:
            yield directory
        finally:
            shutil.rmtree(directory)

    def job_directory(self, job: str) -> Path:
        """Where the pipe of a job is, or will be."""
        return self.directory / f"{self.owner}.{job}"

    def is_alive(self, owner: str) -> bool:
        """Whether a process of this directory is still there. None is, if it left no lock."""
        if owner == self.owner:
            return True
        try:
            descriptor = os.open(self._lock_path(owner), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def remove_leftovers(self) -> list[str]:
        """Remove what dead processes left in the directory."""
        self.home()
        removed = []
        for path in sorted(self.directory.iterdir()):
            owner = path.name.partition(".")[0]
            if path.name == "home" or self.is_alive(owner):
                continue
            if path.is_dir():
                kind = "pipe" if (path / PIPE_NAME).exists() else "scratch directory"
                shutil.rmtree(path)
                removed.append(f"{kind} {path}")
            else:
                path.unlink()
        return removed

    def close(self) -> None:
        """No longer alive."""
        if self._lock_descriptor >= 0:
            self._lock_path(self.owner).unlink(missing_ok=True)
            os.close(self._lock_descriptor)
            self._lock_descriptor = -1

    def _lock_path(self, owner: str) -> Path:
        return self.directory / f"{owner}.lock"
