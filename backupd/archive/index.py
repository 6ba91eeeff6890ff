"""The index of an archive: which chunks make up its tar stream, in order, and where each is stored.

    {"kind":"index","format":1,"archives":["archives/storage/0a1b2c3d4e5f.tar.zst", …]}
    ["<BLAKE3-256 of the plain chunk, hex>", plain length, number in "archives", offset, stored length]
    …

Zstandard-compressed JSON lines. One million chunks (some 2.6 TB) take 42 MB (docs/FORMAT.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from backupd.archive.lines import LineWriter, Sink, read_lines
from backupd.errors import IntegrityError
from backupd.malformed import MALFORMED
from backupd.model import MIB

LARGEST_CHUNK = 16 * MIB
"""What a reader has to be ready to hold, in plain bytes; pyfastcdc cuts no larger ones."""


class IndexHeader(msgspec.Struct, frozen=True, kw_only=True):
    """The first line. `archives` are keys of data objects; the lines below refer to them by position."""

    kind: str
    format: int
    archives: list[str]


class ChunkRef(NamedTuple):
    """A chunk and where its frame is: `stored_size` bytes from `offset` in the data object `archive`.

    `digest` is the BLAKE3-256 of the plain chunk, in hex.
    """

    digest: str
    plain_size: int
    archive: int
    offset: int
    stored_size: int


# Made on import: msgspec 0.22 crashes when several threads are the first to decode a type.
_HEADER = msgspec.json.Decoder(IndexHeader)
_CHUNK = msgspec.json.Decoder(ChunkRef)


class IndexWriter:
    """Writes an index as its archive is made. `archives` is complete from the start: own key first, then parents'."""

    def __init__(self, sink: Sink, archives: Sequence[str]) -> None:
        self._lines = LineWriter(sink)
        self._encode = msgspec.json.Encoder().encode
        self._lines.write(self._encode(IndexHeader(kind="index", format=1, archives=list(archives))))

    def add(self, chunk: ChunkRef) -> None:
        """The next chunk of the stream."""
        self._lines.write(self._encode(chunk))

    def close(self) -> None:
        """End the object."""
        self._lines.close()


class Index:
    """An index being read: its header at once, its chunks by iterating, once."""

    def __init__(self, pieces: Iterable[bytes], name: str) -> None:
        self._name = name
        self._lines = read_lines(pieces, name)
        try:
            header = _HEADER.decode(next(self._lines, b""))
        except MALFORMED as exc:
            raise IntegrityError(f"{name} is not an index: {exc}") from exc
        if header.kind != "index" or header.format != 1:
            raise IntegrityError(f"{name} is not an index of format 1")
        self.archives = header.archives

    def __iter__(self) -> Iterator[ChunkRef]:
        """Every chunk, checked to make sense: sizes that a chunk can have, a known archive, no negative offset."""
        decode = _CHUNK.decode
        count = len(self.archives)
        try:
            for line in self._lines:
                chunk = decode(line)
                if not 0 < chunk[1] <= LARGEST_CHUNK or chunk[4] <= 0 or chunk[3] < 0 or not 0 <= chunk[2] < count:
                    raise IntegrityError(f"{self._name} has an impossible line")
                yield chunk
        except MALFORMED as exc:
            raise IntegrityError(f"{self._name} has a line that is not a chunk: {exc}") from exc
