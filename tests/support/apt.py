"""Debian's packages, installed where that can be done; one process at a time, since tests run in several."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LISTS = Path("/var/lib/apt/lists")
FRESH_SECONDS = 3600
PATIENCE_SECONDS = 300  # somebody else may be installing something


class NotInstallable(Exception):  # noqa: N818  (reads as what it is)
    """What was asked for isn't there and can't be installed; the message says why."""


def install(*packages: str, programs: tuple[str, ...] = ()) -> None:
    """Have these packages' programs, which bear the packages' names unless `programs` says others."""
    wanted = programs or packages
    if _missing(wanted):
        if os.geteuid() != 0:
            raise NotInstallable("only root can install it")
        if shutil.which("apt-get") is None:
            raise NotInstallable("it is installed on Debian and Ubuntu only")
        with apt_lock():
            if _missing(wanted):
                update()
                _apt_get("install", "-y", "-qq", "--no-install-recommends", *packages)
    if missing := _missing(wanted):
        raise NotInstallable(f"Debian's {', '.join(packages)} did not bring {', '.join(missing)}")


def update() -> None:
    """Fetch the lists of packages, unless that was done a short while ago. The caller holds the lock."""
    lists = [path.stat().st_mtime for path in LISTS.glob("*Packages*")]
    if not lists or time.time() - LISTS.stat().st_mtime > FRESH_SECONDS:
        _apt_get("update", "-qq")


@contextmanager
def apt_lock() -> Iterator[None]:
    """Nobody else of these tests is installing or updating meanwhile."""
    with (Path(tempfile.gettempdir()) / "backupd-tests-apt.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _missing(programs: tuple[str, ...]) -> list[str]:
    return [program for program in programs if shutil.which(program) is None]


def _apt_get(*arguments: str) -> None:
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    command = ["apt-get", "-o", f"DPkg::Lock::Timeout={PATIENCE_SECONDS}", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NotInstallable(f"`apt-get {arguments[0]}` failed: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
