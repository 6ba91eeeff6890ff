"""Which parts of a tar stream hold the paths that a user asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from backupd.archive import Member
from backupd.errors import SourceError, UsageError

Range = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Selection:
    """Plain ranges of the stream, sorted and merged, that together are a tar of the wanted members.

    With them come the directories above, for their owners and modes, and the files that wanted hard links lead to.
    `size` is that of the ranges in bytes.
    """

    ranges: tuple[Range, ...]
    members: int

    @property
    def size(self) -> int:
        """Bytes of tar stream."""
        return sum(end - start for start, end in self.ranges)


def normalized(path: str) -> str:
    """A path as file lists have it. UsageError for one that leaves the volume."""
    parts = PurePosixPath(path.lstrip("/")).parts
    if ".." in parts or "\n" in path or "\0" in path:
        raise UsageError(f"{path!r} is not a path inside a volume")
    return "/".join(parts) or "."


def spans(members: Iterable[Member], stream_size: int) -> Iterator[tuple[Member, Range]]:
    """Each member with where it lies in the tar stream: up to the next one, the last up to the end."""
    previous: Member | None = None
    for member in members:
        if previous is not None:
            yield previous, (previous.offset, member.offset)
        previous = member
    if previous is not None:
        yield previous, (previous.offset, stream_size)


def below(path: str, wanted: str) -> bool:
    """Whether `path` is `wanted` or lies below it."""
    return wanted in (".", path) or path.startswith(f"{wanted}/")


def select_paths(read: Callable[[], Iterable[tuple[Member, Range]]], paths: Sequence[str]) -> Selection:
    """The members at and below `paths`; SourceError names a path that the archive does not hold.

    `read` is called once, and a second time when hard links have to be followed. Memory: what was selected.
    """
    chosen: set[Range] = set()
    found: set[str] = set()
    above = {str(parent) for path in paths for parent in PurePosixPath(path).parents}
    targets: set[str] = set()
    count = 0
    for member, span in read():
        hits = [path for path in paths if below(member.path, path)]
        if hits:
            found.update(hits)
            count += 1
            if member.kind == "hardlink":
                targets.add(normalized(member.link))
        if hits or (member.kind == "dir" and member.path in above):
            chosen.add(span)
    for path in paths:
        if path not in found:
            raise SourceError(f"the archive holds no {path}", hint="`backupd ls ID VOLUME` shows what it holds")
    if targets:
        chosen.update(span for member, span in read() if member.path in targets)
    return Selection(_merged(sorted(chosen)), count)


def _merged(ranges: Iterable[Range]) -> tuple[Range, ...]:
    merged: list[Range] = []
    for start, end in ranges:
        if merged and merged[-1][1] == start:
            merged[-1] = (merged[-1][0], end)
        else:
            merged.append((start, end))
    return tuple(merged)
