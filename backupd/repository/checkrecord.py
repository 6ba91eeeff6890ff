"""What a verification found, as it is kept with its snapshot (docs/FORMAT.md)."""

from __future__ import annotations

from typing import Literal

import msgspec

from backupd.model import AwareTime, require_possible

CheckKind = Literal["sizes", "objects", "data"]
"""How it was looked at: objects' sizes, and index and file list; the hashes of whole objects; chunks, unpacked."""


class VolumeCheck(msgspec.Struct, frozen=True, kw_only=True):
    """One volume in a check; `problem` None is a clean bill. `read` are bytes: plain ones, of `objects` stored ones."""

    volume: str
    read: int = 0
    problem: str | None = None


class CheckRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A check of a snapshot in one store, whose `repository` it names: it says nothing of copies in others.

    `fraction` of the data was read, 0 of them for `sizes`. `host` is "" where the snapshot is encrypted, and problems
    are told in general words there.
    """

    format: int = 1
    id: str
    repository: str
    snapshot: str
    time: AwareTime
    finished: AwareTime
    host: str
    program: str
    kind: CheckKind
    fraction: float
    volumes: list[VolumeCheck]

    def __post_init__(self) -> None:
        require_possible(self.time, self.finished)

    @property
    def good(self) -> bool:
        """Whether nothing was found wrong."""
        return all(volume.problem is None for volume in self.volumes)

    @property
    def full(self) -> bool:
        """Whether every byte was read."""
        return self.kind != "sizes" and self.fraction >= 1

    @property
    def how(self) -> str:
        """What was looked at, in words."""
        return "sizes" if self.kind == "sizes" else "all data" if self.full else f"{self.fraction * 100:g}% of data"
