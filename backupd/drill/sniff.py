"""Finds the SQLite databases of an archive while its tar stream flows by: by what is in files, not by their names."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Iterator

from msgspec import Struct, field

from backupd.archive import Member
from backupd.repository import Range, spans

MAGIC = b"SQLite format 3\0"

# A database is made of pages of at least this size (https://www.sqlite.org/fileformat.html, 1.2).
_SMALLEST_PAGE = 512

# Headers of a member: its own block and those of its extensions. One that has longer ones is not recognised.
_WINDOW = 16 * 1024


class Sniffer(Struct):
    """Wraps a tar stream; `found` holds the databases by path, with their sizes, when it has ended.

    Memory: one window of 16 KiB and what is found.
    """

    members: Iterable[Member]
    stream_size: int
    found: dict[str, int] = field(default_factory=dict)

    def through(self, stream: Iterable[bytes | memoryview]) -> Iterator[bytes | memoryview]:
        """The stream as it is."""
        candidates = _candidates(self.members, self.stream_size)
        candidate = next(candidates, None)
        window = bytearray()
        position = 0
        for piece in stream:
            end = position + len(piece)
            while candidate is not None and candidate[1][0] < end:
                member, (start, stop) = candidate
                window += memoryview(piece)[max(start - position, 0) : stop - position]
                if stop > end:
                    break
                if _is_database(window):
                    self.found[member.path] = member.size
                window.clear()
                candidate = next(candidates, None)
            position = end
            yield piece


def _candidates(members: Iterable[Member], stream_size: int) -> Iterator[tuple[Member, Range]]:
    for member, (start, end) in spans(members, stream_size):
        if member.kind == "file" and member.size >= _SMALLEST_PAGE and member.size % _SMALLEST_PAGE == 0:
            yield member, (start, min(end, start + _WINDOW))


def _is_database(window: bytearray) -> bool:
    if MAGIC not in window:  # spares nearly all of them the parsing
        return False
    try:
        with tarfile.open(fileobj=io.BytesIO(window), mode="r:", errorlevel=0) as tar:
            entry = tar.next()
    except (tarfile.TarError, ValueError):
        return False
    return entry is not None and window[entry.offset_data :].startswith(MAGIC)
