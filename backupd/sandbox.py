"""A place cut off from everything else, where a drill restores volumes and starts copies of services.

What an engine's sandbox has to keep is written at `Sandbox`; docs/decisions/0045 says against what.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Protocol

from msgspec import Struct, field

from backupd.errors import SourceError
from backupd.model import MIB, Volume
from backupd.records import Discreet
from backupd.services import Health, Service


class Limits(Struct, frozen=True):
    """What a copy of a service may use."""

    memory_bytes: int = 1024 * MIB
    cpus: float = 1.0


class ExtraArguments(Struct, frozen=True):
    """Goes behind the command of a copy, if that is a plain call of `program`."""

    program: str
    arguments: tuple[str, ...]


class CopySpec(Struct, frozen=True):
    """What a copy is made from: `volumes` maps sources of its mounts to the scratch volumes that take their place."""

    service: Service
    volumes: Mapping[str, Volume]
    limits: Limits = Limits()
    extra: ExtraArguments | None = None


class Copy(Discreet, frozen=True):
    """A copy of a service. `command` is its entrypoint and command, which may hold secrets.

    `notes` say in what it differs from the original, beyond what every copy does.
    """

    _hidden: ClassVar = ("command",)

    service: Service
    original: Service
    command: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Condition(Struct, frozen=True):
    """How a copy is now; `exit_code` once it has ended."""

    health: Health
    exit_code: int | None = None
    out_of_memory: bool = False


class Sandbox(Protocol):
    """Scratch volumes and copies of services. `close` removes all of it, by force; so does `recover` after a kill.

    A copy runs the image, command, environment, user and limits of the original, and cannot act upon the world: it has
    no network but one that ends in the sandbox, no published ports, no volume of anybody else's, no host directory to
    write to, no socket or device of the host, no more rights than the original and no labels that others act upon.
    """

    def volume(self, name: str) -> Volume:
        """A new empty volume for that volume's data."""
        ...

    def directory(self, volume: Volume) -> Path | None:
        """Where this process sees the files of a scratch volume, None if it does not."""
        ...

    def copy(self, spec: CopySpec) -> Copy:
        """Make a copy, not started yet. SourceError if the engine refuses, for example because its image is gone."""
        ...

    def start(self, copy: Copy) -> None:
        """Start it; does not wait."""
        ...

    def condition(self, copy: Copy) -> Condition:
        """How it is now."""
        ...

    def log(self, copy: Copy, lines: int) -> Sequence[str]:
        """The last lines that it wrote. They may hold secrets."""
        ...

    def close(self) -> None:
        """Remove all of it. SourceError, when all has been tried, if some of it is still there."""
        ...


class DirectorySandbox(Struct):
    """Scratch directories below `root`, for an engine that knows no services."""

    root: Path
    _made: dict[str, Path] = field(default_factory=dict)

    def volume(self, name: str) -> Volume:
        """See Sandbox."""
        path = self.root / name
        try:
            path.mkdir(mode=0o700, parents=True)
        except OSError as exc:
            raise SourceError(f"cannot make the scratch directory {path}: {exc.strerror}") from exc
        self._made[str(path)] = path
        return Volume(name=name, kind="directory", source=str(path))

    def directory(self, volume: Volume) -> Path | None:
        """See Sandbox."""
        return self._made.get(volume.source)

    def copy(self, spec: CopySpec) -> Copy:
        """See Sandbox."""
        raise SourceError(f"container {spec.service.name} is Docker's, and this engine knows no Docker")

    def start(self, copy: Copy) -> None:
        """See Sandbox."""
        raise SourceError(f"there can be no copy of {copy.original.name} here")

    def condition(self, copy: Copy) -> Condition:
        """See Sandbox."""
        raise SourceError(f"there can be no copy of {copy.original.name} here")

    def log(self, copy: Copy, lines: int) -> Sequence[str]:
        """See Sandbox."""
        del lines
        raise SourceError(f"there can be no copy of {copy.original.name} here")

    def close(self) -> None:
        """See Sandbox."""
        remove_directory(self.root)


def drill_directory(state: Path, drill: str) -> Path:
    """Where a drill keeps what it needs on this machine."""
    return state / "drills" / drill


def remove_directory(root: Path) -> bool:
    """Remove a sandbox's directory with all that was restored into it; says whether there was one."""
    if not root.exists():
        return False
    try:
        _open_up(root)
        shutil.rmtree(root)
    except OSError as exc:
        raise SourceError(f"cannot remove {exc.filename or root}: {exc.strerror}", hint="remove it by hand") from exc
    return True


def _open_up(root: Path) -> None:
    """Restored directories may be closed to their owner, who is to remove them."""
    for directory, names, _ in os.walk(root):
        for name in names:
            path = Path(directory, name)
            if not path.is_symlink():
                path.chmod(0o700)
