"""Progress where no bar can be drawn: plain lines, or nothing for programs."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

from backupd.cli.words import duration, size

Say = Callable[[str], None]


class QuietProgress:
    """Shows notes only."""

    def __init__(self, say: Say) -> None:
        self._say = say

    def begin(self, label: str, total: int | None = None) -> None:
        """See Progress."""

    def advance(self, count: int) -> None:
        """See Progress."""

    def end(self) -> None:
        """See Progress."""

    def note(self, text: str) -> None:
        """See Progress."""
        self._say(text)


class LineProgress:
    """A line when a stretch is done: for logs and pipes."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._label: str | None = None
        self._done = 0
        self._started = 0.0

    def begin(self, label: str, total: int | None = None) -> None:  # noqa: ARG002
        """See Progress."""
        self._label, self._done, self._started = label, 0, time.monotonic()

    def advance(self, count: int) -> None:
        """See Progress."""
        self._done += count

    def end(self) -> None:
        """See Progress."""
        if self._label is not None and self._done:
            seconds = time.monotonic() - self._started
            self.note(
                f"{self._label}: {size(self._done)} in {duration(timedelta(seconds=seconds))},"
                f" {size(self._done / max(seconds, 1e-6))}/s"
            )
        self._label = None

    def note(self, text: str) -> None:
        """See Progress."""
        self._say(text)
