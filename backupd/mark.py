"""Marks: files that tell what a killed process of this machine has left elsewhere from what a living one is at."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from backupd.errors import SourceError


class Mark(Struct, frozen=True):
    """A file that is locked for as long as its process lives: the kernel lets go of it however that dies."""

    path: Path
    descriptor: int

    def write(self, text: bytes) -> None:
        """Replace what it says. Not flushed to disk: it is for when the process dies, not for when the machine does.

        A machine that went down leaves it empty or torn, and whoever reads it must make do with that.
        """
        try:
            os.ftruncate(self.descriptor, 0)
            os.pwrite(self.descriptor, text, 0)
        except OSError as exc:
            raise SourceError(f"cannot write {self.path}: {exc.strerror}") from exc

    def close(self, *, keep: bool) -> None:
        """Let go of it. `keep` leaves the file: it says that what it stands for is nobody's."""
        if not keep:
            self.path.unlink(missing_ok=True)
        os.close(self.descriptor)


_NEW = ".new-"


class Marks(Struct, frozen=True):
    """The marks in a directory that processes of this machine share. Names are random, and used once."""

    directory: Path

    def make(self, name: str) -> Mark:
        """A mark of this process, to be made before what it stands for.

        It gets its name when it has its lock: without one it would be taken for a dead one's.
        """
        path = self.directory / name
        new = self.directory / f"{_NEW}{name}"
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            new.rename(path)
        except OSError as exc:
            raise SourceError(f"cannot make {path}: {exc.strerror}", hint="may this user write there?") from exc
        return Mark(path, descriptor)

    def is_dead(self, name: str) -> bool:
        """Whether a process of this machine made the mark and is gone. False for any other machine's."""
        try:
            descriptor = os.open(self.directory / name, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared, as others may be asking as well
        except OSError:
            return False
        finally:
            os.close(descriptor)
        return True

    def read(self, name: str) -> bytes:
        """What a mark says; nothing if it is gone."""
        try:
            return (self.directory / name).read_bytes()
        except OSError:
            return b""

    def forget(self, name: str) -> None:
        """What it stood for is no more."""
        (self.directory / name).unlink(missing_ok=True)

    def names(self) -> Iterator[str]:
        """Every mark that there is."""
        if self.directory.is_dir():
            yield from sorted(path.name for path in self.directory.iterdir() if not path.name.startswith(_NEW))
