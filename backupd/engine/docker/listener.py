"""A thread that takes in what a helper says, while the job's own thread moves the tar stream."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from backupd.engine.docker.frames import Frames
from backupd.engine.docker.helper import Helper
from backupd.errors import SourceError

BUFFER_BYTES = 64 * 1024
STDOUT_LIMIT_BYTES = 16 * 1024 * 1024


class Listener:
    """Reads the helper's stdout, up to a limit, and passes on its stderr, until the connection ends.

    `ended` is a descriptor that becomes readable then. Leaving the block waits for the thread, so the helper must be
    left inside of it, or be hung up on.
    """

    def __init__(self, helper: Helper, on_stderr: Callable[[bytes], None]) -> None:
        self._helper = helper
        self._frames = Frames(helper.connection, on_stderr)
        self._stdout = bytearray()
        self._too_much = False
        self._news = threading.Condition()
        self._over = False
        self.ended, self._end = os.pipe2(os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._listen, name=f"listener of {helper.name}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._helper.hang_up()
        self._thread.join()
        os.close(self.ended)

    def _listen(self) -> None:
        buffer = memoryview(bytearray(BUFFER_BYTES))
        try:
            while count := self._frames.readinto(buffer):
                with self._news:
                    if len(self._stdout) + count > STDOUT_LIMIT_BYTES:
                        self._too_much = True
                    else:
                        self._stdout += buffer[:count]
                    self._news.notify_all()
        finally:
            with self._news:
                self._over = True
                self._news.notify_all()
            os.close(self._end)

    def wait_for(self, text: bytes) -> bool:
        """Whether the helper said `text` on stdout before its end."""
        with self._news:
            self._news.wait_for(lambda: self._over or text in self._stdout)
            return text in self._stdout

    def stdout(self) -> bytes:
        """All that it said; waits for its end."""
        self._thread.join()
        if self._too_much:
            raise SourceError(f"the helper said more than {STDOUT_LIMIT_BYTES // 2**20} MiB on stdout")
        return bytes(self._stdout)

    def has_ended(self) -> bool:
        """Whether the connection has ended."""
        return bool(select.select([self.ended], [], [], 0)[0])
