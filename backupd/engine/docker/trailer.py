"""The last words of a helper, by which the end of its stream is told from its death.

A trailer is `BACKUPD-END <nonce> <exit code of tar>`, padded with spaces to 256 bytes, behind the tar stream.
"""

from __future__ import annotations

import re
from collections.abc import Callable

TRAILER_BYTES = 256
END_WORD = "BACKUPD-END"
READY_WORD = "BACKUPD-READY"

SMALL_BYTES = 64 * 1024


def exit_code_in(text: bytes, nonce: str) -> int | None:
    """Tar's exit code as a trailer, or a line of stdout, tells it; None if this is not that helper's trailer."""
    found = re.search(rb"^%s %s (\d{1,3}) *$" % (END_WORD.encode(), nonce.encode()), text, re.MULTILINE)
    return int(found[1]) if found else None


class Untrailed:
    """Reads a stream but for its last 256 bytes, which are kept in `tail`. Copies nothing of size."""

    def __init__(self, readinto: Callable[[memoryview], int]) -> None:
        self._readinto = readinto
        self._spare = memoryview(bytearray())
        self.tail = b""
        self.ended = False

    def readinto(self, buffer: memoryview) -> int:
        """The next bytes that are surely not trailer, at least one; 0 at the end."""
        if self._spare:
            return self._from_spare(buffer)
        if len(buffer) < SMALL_BYTES:
            large = memoryview(bytearray(SMALL_BYTES))
            self._spare = large[: self.readinto(large)]
            return self._from_spare(buffer)
        while not self.ended:
            held = len(self.tail)
            buffer[:held] = self.tail
            count = self._readinto(buffer[held:])
            if count == 0:
                self.ended = True
                break
            sure = max(0, held + count - TRAILER_BYTES)
            self.tail = bytes(buffer[sure : held + count])
            if sure:
                return sure
        return 0

    def _from_spare(self, buffer: memoryview) -> int:
        count = min(len(buffer), len(self._spare))
        buffer[:count] = self._spare[:count]
        self._spare = self._spare[count:]
        return count
