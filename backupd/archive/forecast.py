"""What the next chunk of a stream will be, if it goes on as an earlier one did.

Where a stream goes on with the very bytes of an earlier one's chunk, it is cut there, too. Hashing them says so, and
need be done anyway, while looking for the end takes longer than that (docs/decisions/0083-chunks-are-foretold.md).
"""

from __future__ import annotations

from array import array
from typing import NamedTuple

_LOOKED_THROUGH = 1024
"""So many chunks, some 2 GiB, may have gone from the earlier stream between one that came and the next."""


class Foretold(NamedTuple):
    """A chunk to come: BLAKE3-256 of its plain bytes, in hex, and their number."""

    digest: str
    size: int


class ChunkOrder:
    """The chunks of a stream, in order. Memory: 12 bytes a chunk beside the digests."""

    def __init__(self) -> None:
        self.digests: list[str] = []
        self.sizes = array("I")

    def append(self, digest: str, size: int) -> None:
        """The next one."""
        self.digests.append(digest)
        self.sizes.append(size)


class Forecast:
    """Follows a stream along an earlier one. Its last chunk is left out: that ended because the stream did."""

    def __init__(self, order: ChunkOrder) -> None:
        self._order = order
        self._end = len(order.digests) - 1
        self._here = 0
        self._is_lost = False

    def next(self) -> Foretold | None:
        """What comes if nothing has changed; None if that can't be said."""
        if self._is_lost or self._here >= self._end:
            return None
        return Foretold(self._order.digests[self._here], self._order.sizes[self._here])

    def came(self, digest: str) -> None:
        """This one came: the stream is behind it, or at a place that the earlier one did not have."""
        try:
            place = self._order.digests.index(digest, self._here, self._here + _LOOKED_THROUGH)
        except ValueError:
            self._is_lost = True
        else:
            self._here = place + 1
            self._is_lost = False
