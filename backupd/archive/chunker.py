"""Cuts a byte stream into content-defined chunks.

FastCDC (Wen Xia et al., "The Design of Fast Content-Defined Chunking for Data Deduplication Based Storage Systems",
IEEE TPDS 2020) in the gear table and masks of pyfastcdc, seed 0. Where it cuts is part of format 1: the boundaries
are pinned by `tests/golden/test_chunker.py`, since other boundaries would store everything again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Literal, NamedTuple

import msgspec
from blake3 import blake3
from pyfastcdc import FastCDC

from backupd.archive.blocks import Piece
from backupd.archive.forecast import Forecast
from backupd.model import KIB, MIB


class ChunkerParameters(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes in plain bytes. `normalization` is the level of normalized chunking of the paper."""

    algorithm: Literal["fastcdc-2020"] = "fastcdc-2020"
    minimum: int = 512 * KIB
    average: int = 2 * MIB
    maximum: int = 4 * MIB
    normalization: Literal[1, 2, 3] = 1


class Chunk(NamedTuple):
    """A piece of a stream, and the BLAKE3-256 of it, in hex, where that is known already."""

    data: memoryview
    digest: str | None


class Chunker:
    """Cuts what `Blocks` reads, with the largest chunk for their `head`; chunks are slices of the blocks, uncopied."""

    def __init__(self, parameters: ChunkerParameters) -> None:
        self._minimum = parameters.minimum
        self._maximum = parameters.maximum
        self._cutter = FastCDC(
            parameters.average,
            min_size=parameters.minimum,
            max_size=parameters.maximum,
            normalized_chunking=parameters.normalization,
            seed=0,
        )

    def cut(
        self, pieces: Iterable[Piece], done_with: Callable[[memoryview], None], forecast: Forecast | None = None
    ) -> Iterator[Chunk]:
        """The chunks of a stream, in order. `done_with` is told of a block when all of its chunks have been yielded.

        With a forecast, chunks of the earlier stream that come again stay as they were cut, and all have their digests.

        A cut depends on the `maximum` bytes from the chunk's start only, so it is made as soon as these are there or
        the stream has ended: how the stream arrives in pieces makes no difference. Nothing beyond them is waited for:
        who writes the stream and who takes the chunks work at the same time.
        """
        block: memoryview | None = None
        start = filled = 0
        for piece in pieces:
            if piece.block is not block:
                rest = block[start:filled] if block else b""
                start = self._maximum - len(rest)
                piece.block[start : self._maximum] = rest
                if block:
                    done_with(block)
                block = piece.block
            filled = piece.filled
            while filled - start >= self._maximum:
                yield (chunk := self._first(block[start : start + self._maximum], forecast))
                start += len(chunk.data)
        while block and start < filled:
            yield (chunk := self._first(block[start:filled], forecast))
            start += len(chunk.data)

    def _first(self, data: memoryview, forecast: Forecast | None) -> Chunk:
        if forecast and (foretold := forecast.next()) and self._minimum <= foretold.size <= len(data):
            chunk = data[: foretold.size]
            if blake3(chunk).hexdigest() == foretold.digest:
                forecast.came(foretold.digest)
                return Chunk(chunk, foretold.digest)
        chunk = data[: next(self._cutter.cut_buf(data)).length]
        if forecast is None:
            return Chunk(chunk, None)
        digest = blake3(chunk).hexdigest()
        forecast.came(digest)
        return Chunk(chunk, digest)
