"""A directory of a volume, held open: jobs that are started in it are in it, whatever becomes of its name."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from msgspec import Struct

from backupd.engine.confine import PYTHON, confinement
from backupd.engine.tarcommand import ENVIRONMENT, refuse_outside
from backupd.errors import SourceError, VolumeFull

SUBDIRECTORY_MODE = 0o700

_PASSED = frozenset({"PATH", "HOME", "TMPDIR", "PYTHONHOME", "PYTHONPATH"})


class Within(Struct, frozen=True):
    """Descriptors of the volume's root and of a directory in it, good while the block that made them lasts."""

    root: int
    directory: int

    def start(self, command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        """A process in the directory, in a group of its own, that can write the volume and nothing else."""
        with confinement([self.root]) as call:
            return call(partial(_start_in, self.directory, command, **options))

    @contextmanager
    def python(self, copies: Within) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
        """Starts the same with this Python, which can also write the other volume, and ends with the block."""
        with confinement([self.root, copies.root], PYTHON) as call:
            yield lambda command, **options: call(partial(_start_in, self.directory, command, **options))


def _start_in(directory: int, command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    place = f"/proc/self/fd/{directory}"
    return subprocess.Popen(list(command), cwd=place, env=job_environment(), process_group=0, **options)


def job_environment() -> dict[str, str]:
    """What programs need to be found and to run: whoever misuses a job finds no password in its environment."""
    needed = {name: value for name, value in os.environ.items() if name in _PASSED or name.startswith("LD_")}
    return needed | ENVIRONMENT


@contextmanager
def within(root: str, subdirectory: str = "", *, create: bool = False) -> Iterator[Within]:
    """Open the directory, step by step; SourceError if a link on the way could lead out of the volume.

    `create`: make what there is not yet.
    """
    refuse_outside(subdirectory)
    descriptors: list[int] = []
    reached = root
    try:
        try:
            descriptors.append(os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
            for name in filter(None, subdirectory.split("/")):
                reached = f"{reached}/{name}"
                descriptors.append(_step(descriptors[-1], name, create=create))
        except OSError as exc:
            raise _no_way(root, subdirectory, reached, exc) from exc
        yield Within(descriptors[0], descriptors[-1])
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _step(parent: int, name: str, *, create: bool) -> int:
    if create:
        with suppress(FileExistsError):
            os.mkdir(name, SUBDIRECTORY_MODE, dir_fd=parent)
    return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)


def _no_way(root: str, subdirectory: str, reached: str, exc: OSError) -> SourceError:
    if reached != root and Path(reached).is_symlink():
        whole = f"{root}/{subdirectory}"
        return SourceError(f"{whole} is reached through a symbolic link, which could lead out of the volume")
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return VolumeFull(f"cannot make {reached}: {exc.strerror}")
    return SourceError(f"cannot open {reached}: {exc.strerror}", hint="may this user read and write there?")
