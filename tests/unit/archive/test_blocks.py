"""How a stream gets from one thread to another."""

from __future__ import annotations

import threading
from itertools import islice

import pytest

from backupd.archive.blocks import Blocks
from tests.unit.archive.samples import noise, reading

HEAD, SIZE = 100, 800


def test_the_stream_comes_whole_behind_the_heads() -> None:
    stream = noise(10_000)
    blocks = Blocks(HEAD, SIZE, count=2)
    came = b""
    start, current = HEAD, None
    for block, filled in blocks.read(reading(stream, [7] * 2000)):
        if block is not current:
            if current is not None:
                blocks.give_back(current)
            start, current = HEAD, block
        assert start <= filled <= HEAD + SIZE
        came += bytes(block[start:filled])
        start = filled
    assert came == stream


def test_little_pieces_are_told_of_together() -> None:
    told = list(Blocks(HEAD, SIZE, count=2).read(reading(noise(SIZE), [1] * SIZE)))
    assert [filled - HEAD for _, filled in told] == [*range(100, 801, 100), 0]  # of the second block, there is nothing


def test_no_more_blocks_are_made_than_were_allowed() -> None:
    """Who reads waits for one to be given back."""
    blocks = Blocks(HEAD, SIZE, count=3)
    pieces = blocks.read(reading(noise(20 * SIZE)))
    seen = [block for block, _ in islice(pieces, 3)]
    assert len({id(block) for block in seen}) == 3
    given = threading.Timer(0.05, blocks.give_back, [seen[1]])
    given.start()
    assert next(pieces).block is seen[1]
    given.join()


def test_reading_ends_when_nobody_takes_it_any_more() -> None:
    blocks = Blocks(HEAD, SIZE, count=1)
    pieces = blocks.read(reading(noise(20 * SIZE)))
    next(pieces)
    blocks.no_more()
    assert list(pieces) == []


def test_a_stream_that_fails() -> None:
    def broken(buffer: memoryview) -> int:
        raise OSError("broken pipe")

    with pytest.raises(OSError, match="broken pipe"):
        next(Blocks(HEAD, SIZE, count=1).read(broken))
