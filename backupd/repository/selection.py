"""Which parts of a tar stream hold the paths that a user asks for."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import PurePosixPath

from msgspec import Struct

from backupd.archive import Member
from backupd.errors import SourceError, UsageError

Range = tuple[int, int]


class Selection(Struct, frozen=True):
    """Plain ranges of the stream, sorted and merged, that together are a tar of the wanted members.

    With them come the directories above, for their owners and modes, and the files that wanted hard links lead to.
    `size` is that of the ranges in bytes. `paths` are the wanted ones, without those that lie below others.
    """

    ranges: tuple[Range, ...]
    members: int
    paths: tuple[str, ...]

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


def link_target(member: Member) -> str:
    """The path that a hard link names, as file lists have it."""
    return str(PurePosixPath(member.link))


def select_paths(
    read: Callable[[], Iterable[tuple[Member, Range]]], paths: Sequence[str], name: str = "the archive"
) -> Selection:
    """The members at and below `paths`; SourceError names a path that the archive, `name`, does not hold.

    `read` is called once, and a second time when hard links have to be followed. Memory: ranges that are not adjacent.
    """
    wanted = set(paths)
    above = {parent for path in paths for parent in _parents(path)}
    chosen: list[Range] = []
    found: set[str] = set()
    targets: set[str] = set()
    count = 0
    for member, span in read():
        hits = wanted.intersection((member.path, *_parents(member.path)))
        if hits:
            found |= hits
            count += 1
            if member.kind == "hardlink":
                targets.add(link_target(member))
        if hits or (member.kind == "dir" and member.path in above):
            _append(chosen, span)
    for path in paths:
        if path not in found:
            raise SourceError(
                f"{name} holds no {path} in this snapshot", hint="`backupd ls ID VOLUME` shows what it holds"
            )
    if targets:
        leading_to = [span for member, span in read() if member.path in targets]
        both, chosen = heapq.merge(chosen, leading_to), []
        for span in both:
            _append(chosen, span)
    outermost = tuple(path for path in dict.fromkeys(paths) if wanted.isdisjoint(_parents(path)))
    return Selection(tuple(chosen), count, outermost)


def _parents(path: str) -> Iterator[str]:
    """The directories above, innermost first, the root last."""
    end = path.rfind("/")
    while end > 0:
        yield path[:end]
        end = path.rfind("/", 0, end)
    if path != ".":
        yield "."


def _append(ranges: list[Range], span: Range) -> None:
    """Add a range that begins no earlier than the last one, merging what touches."""
    if ranges and span[0] <= ranges[-1][1]:
        ranges[-1] = (ranges[-1][0], max(ranges[-1][1], span[1]))
    else:
        ranges.append(span)
