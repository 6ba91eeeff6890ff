"""The multiplexed stream of an attached container without a terminal.

Frames of `stream(1) | zero(3) | length(4, big endian) | payload`, stream 1 being stdout and 2 stderr (Docker Engine
API, "Attach to a container"). A frame is at most 32 KiB long, so many are received at once.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

STDOUT = 1
HEADER_BYTES = 8
RECEIVE_BYTES = 512 * 1024


class Frames:
    """Takes the stream apart: stdout is read, stderr handed to a callback on the way. Not thread-safe.

    `early`, at most RECEIVE_BYTES long, was received of the connection before.
    """

    def __init__(self, connection: socket.socket, on_stderr: Callable[[bytes], None], early: bytes = b"") -> None:
        self._connection = connection
        self._on_stderr = on_stderr
        self._received = memoryview(bytearray(RECEIVE_BYTES))
        self._received[: len(early)] = early
        self._start = 0
        self._end = len(early)
        self._header = b""
        self._stream = STDOUT
        self._left = 0

    def readinto(self, buffer: memoryview) -> int:
        """The next bytes of stdout, at least one; 0 when the connection has ended, for whatever reason."""
        filled = 0
        while filled < len(buffer):
            if self._start == self._end and (filled or not self._receive()):
                break
            if self._left == 0:
                self._take_header()
            elif self._stream == STDOUT:
                count = min(self._left, self._end - self._start, len(buffer) - filled)
                buffer[filled : filled + count] = self._take(count)
                filled += count
            else:
                self._on_stderr(bytes(self._take(min(self._left, self._end - self._start))))
        return filled

    def _receive(self) -> bool:
        try:
            count = self._connection.recv_into(self._received)
        except ConnectionError:
            count = 0  # how a connection ends is not evidence: trailer and exit code are
        self._start, self._end = 0, count
        return count > 0

    def _take(self, count: int) -> memoryview:
        taken = self._received[self._start : self._start + count]
        self._start += count
        self._left -= count
        return taken

    def _take_header(self) -> None:
        wanted = min(HEADER_BYTES - len(self._header), self._end - self._start)
        self._header += self._received[self._start : self._start + wanted]
        self._start += wanted
        if len(self._header) == HEADER_BYTES:
            self._stream = self._header[0]
            self._left = int.from_bytes(self._header[4:], "big")
            self._header = b""
