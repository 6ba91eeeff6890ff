"""Marks of this machine's leases: tell those of a killed process from those of a living one."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from backupd.errors import SourceError


@dataclass(frozen=True, slots=True)
class Mark:
    """A file that is locked for as long as its lease's holder lives: the kernel lets go of it however he dies."""

    path: Path
    descriptor: int

    def close(self, *, keep: bool) -> None:
        """Let go of it. `keep` leaves the file: it says that the lease in the store is nobody's."""
        if not keep:
            self.path.unlink(missing_ok=True)
        os.close(self.descriptor)


@dataclass(frozen=True, slots=True)
class Marks:
    """The marks below a state directory, which processes of this machine share."""

    directory: Path

    def make(self, lease_id: str) -> Mark:
        """Mark a lease of this process, before it is written."""
        path = self.directory / lease_id
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            raise SourceError(
                f"cannot mark a lease in {path}: {exc.strerror}", hint="may this user write there?"
            ) from exc
        return Mark(path, descriptor)

    def is_dead(self, lease_id: str) -> bool:
        """Whether a process of this machine held the lease and is gone. False for any other machine's."""
        try:
            descriptor = os.open(self.directory / lease_id, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        finally:
            os.close(descriptor)
        return True

    def forget(self, lease_id: str) -> None:
        """The lease is no more."""
        (self.directory / lease_id).unlink(missing_ok=True)

    def ids(self) -> Iterator[str]:
        """Every lease that is marked."""
        if self.directory.is_dir():
            yield from sorted(path.name for path in self.directory.iterdir())
