"""Cuts a byte stream into content-defined chunks.

FastCDC (Wen Xia et al., "The Design of Fast Content-Defined Chunking for Data Deduplication Based Storage Systems",
IEEE TPDS 2020) in the gear table and masks of pyfastcdc, seed 0. Where it cuts is part of format 1: the boundaries
are pinned by `tests/golden/test_chunker.py`, since other boundaries would store everything again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import msgspec
from pyfastcdc import FastCDC

from backupd.model import KIB, MIB

ReadInto = Callable[[memoryview], int]


class ChunkerParameters(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes in plain bytes. `normalization` is the level of normalized chunking of the paper."""

    algorithm: Literal["fastcdc-2020"] = "fastcdc-2020"
    minimum: int = 512 * KIB
    average: int = 2 * MIB
    maximum: int = 4 * MIB
    normalization: Literal[1, 2, 3] = 1


class Chunker:
    """Reads blocks of four times the largest chunk and yields slices of them, uncopied.

    Memory: one block, plus those that yielded chunks still refer to.
    """

    def __init__(self, parameters: ChunkerParameters) -> None:
        self._maximum = parameters.maximum
        self._block_size = 4 * parameters.maximum
        self._cutter = FastCDC(
            parameters.average,
            min_size=parameters.minimum,
            max_size=parameters.maximum,
            normalized_chunking=parameters.normalization,
            seed=0,
        )

    def cut(self, readinto: ReadInto) -> Iterator[memoryview]:
        """The chunks of a stream, in order. `readinto` fills a buffer at least in part and returns 0 at the end.

        A cut depends on the `maximum` bytes from the chunk's start only, so it is made as soon as these are there or
        the stream has ended: how the stream arrives in pieces makes no difference. Nothing beyond them is waited for:
        who writes the stream and who takes the chunks work at the same time.
        """
        block = memoryview(bytearray(self._block_size))
        start = filled = 0
        ended = False
        while not ended or start < filled:
            if self._block_size - start < self._maximum:
                rest = block[start:filled]
                block = memoryview(bytearray(self._block_size))
                start, filled = 0, len(rest)
                block[:filled] = rest
            while not ended and filled - start < self._maximum:
                count = readinto(block[filled:])
                filled += count
                ended = not count
            if start < filled:
                length = next(self._cutter.cut_buf(block[start : min(filled, start + self._maximum)])).length
                yield block[start : start + length]
                start += length
