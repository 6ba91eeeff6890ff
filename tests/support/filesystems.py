"""Real file systems on loop devices, for as long as a block runs. Needs root, loop devices and a mkfs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.apt import NotInstallable, install

PACKAGES = {"xfs": "xfsprogs", "btrfs": "btrfs-progs", "ext4": "e2fsprogs"}


class NoFilesystem(Exception):  # noqa: N818
    """Why there is none here."""


@contextmanager
def filesystem(kind: str, directory: Path, megabytes: int = 600) -> Iterator[Path]:
    """A new file system, mounted below `directory`; NoFilesystem if that cannot be had."""
    with device(kind, directory, megabytes) as name:
        place = directory / kind
        place.mkdir()
        _run("mount", name, str(place))
        try:
            yield place
        finally:
            if subprocess.run(["umount", str(place)], check=False).returncode != 0:
                subprocess.run(["umount", "--lazy", str(place)], check=False)


@contextmanager
def device(kind: str, directory: Path, megabytes: int = 600) -> Iterator[str]:
    """A loop device with a new file system, its image in `directory`."""
    if os.geteuid() != 0:
        raise NoFilesystem("only root can mount")
    program = f"mkfs.{kind}"
    try:
        install(PACKAGES[kind], programs=(program,))
    except NotInstallable as exc:
        raise NoFilesystem(f"there is no {program}: {exc}") from exc
    image = directory / f"{kind}.img"
    with image.open("wb") as file:
        file.truncate(megabytes << 20)
    _run(program, "-q", str(image))
    name = _run("losetup", "--find", "--show", str(image))
    try:
        yield name
    finally:
        subprocess.run(["losetup", "--detach", name], check=False)
        image.unlink()


def _run(*command: str) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise NoFilesystem(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout.strip()
