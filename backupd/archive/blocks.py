"""Takes a stream from the thread that reads it to the one that works on it, in blocks that are used again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import NamedTuple

ReadInto = Callable[[memoryview], int]

_PIECES_A_BLOCK = 8


class Piece(NamedTuple):
    """News of a stream: `block` holds it up to `filled` now, from behind its head on."""

    block: memoryview
    filled: int


class Blocks:
    """Reads a stream into at most `count` blocks; each begins with `head` bytes that are for who takes it.

    There goes what is left of the block before, so that it and what follows are in one piece.

    Memory: `count` times `head + size`, made when none is free.
    """

    def __init__(self, head: int, size: int, count: int) -> None:
        self._head = head
        self._size = size
        self._unmade = count
        self._free: SimpleQueue[memoryview | None] = SimpleQueue()

    def read(self, readinto: ReadInto) -> Iterator[Piece]:
        """The stream as it comes. `readinto` fills a buffer at least in part and returns 0 at the end.

        Waits while all blocks are in use; ends early once there are to be no more.
        """
        while (block := self._next()) is not None:
            filled = told = self._head
            while filled < len(block):
                count = readinto(block[filled:])
                filled += count
                if filled - told >= self._size // _PIECES_A_BLOCK or not count or filled == len(block):
                    yield Piece(block, filled)
                    told = filled
                if not count:
                    return

    def give_back(self, block: memoryview) -> None:
        """It can be used again. From any thread."""
        self._free.put(block)

    def no_more(self) -> None:
        """Nobody takes what is read any more. From any thread."""
        self._free.put(None)

    def _next(self) -> memoryview | None:
        if self._unmade and self._free.empty():
            self._unmade -= 1
            return memoryview(bytearray(self._head + self._size))
        return self._free.get()
