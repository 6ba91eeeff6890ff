"""Zstandard-compressed JSON lines: how indexes and file lists are stored. Streams both ways, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import zstandard

from backupd.errors import IntegrityError
from backupd.model import MIB

Sink = Callable[[bytes | memoryview], object]

# A window that every zstd program accepts by default (RFC 8878, section 3.1.1.1.2, recommends 8 MiB at least).
_MAXIMUM_WINDOW = 8 * MIB
_BATCH = 64 * 1024


class LineWriter:
    """Compresses lines into `sink` as they come. Nothing is complete before `close`."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._compressor = zstandard.ZstdCompressor(3, write_checksum=True).compressobj()
        self._batch = bytearray()

    def write(self, line: bytes) -> None:
        """Append one line, given without its line break."""
        self._batch += line
        self._batch += b"\n"
        if len(self._batch) >= _BATCH:
            self._flush()

    def _flush(self) -> None:
        if compressed := self._compressor.compress(self._batch):
            self._sink(compressed)
        self._batch = bytearray()

    def close(self) -> None:
        """Write what is left and the end of the frame."""
        self._flush()
        self._sink(self._compressor.flush())


def read_lines(pieces: Iterable[bytes], name: str) -> Iterator[bytes]:
    """The lines of a compressed object given in pieces; IntegrityError names the object if it is not whole."""
    decompressor = zstandard.ZstdDecompressor(max_window_size=_MAXIMUM_WINDOW).decompressobj()
    rest = b""
    try:
        for piece in pieces:
            # Small steps: a line of zeros compresses 10,000-fold, and memory has to stay bounded.
            for start in range(0, len(piece), _BATCH):
                lines = (rest + decompressor.decompress(piece[start : start + _BATCH])).split(b"\n")
                rest = lines.pop()
                yield from lines
    except zstandard.ZstdError as exc:
        raise IntegrityError(f"{name} is damaged: {exc}") from exc
    if not decompressor.eof or decompressor.unused_data or rest:
        raise IntegrityError(f"{name} is cut short or has something behind its end")
