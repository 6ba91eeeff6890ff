"""Progress as log lines: each step, and of long ones how far they are."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

from loguru import logger

from backupd.words import duration, size

_EVERY_SECONDS = 30.0


class LogProgress:
    """A line when a stretch is done, and every half minute until then."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._label: str | None = None
        self._total: int | None = None
        self._done = 0
        self._began = self._said = 0.0

    def begin(self, label: str, total: int | None = None) -> None:
        """See Progress."""
        self._label, self._total, self._done = label, total, 0
        self._began = self._said = self._now()

    def advance(self, count: int) -> None:
        """See Progress."""
        self._done += count
        now = self._now()
        if self._label is not None and now - self._said >= _EVERY_SECONDS:
            self._said = now
            share = f" of {size(self._total)} ({self._done / self._total:.0%})" if self._total else ""
            self.note(f"{self._label}: {size(self._done)}{share} so far, {self._rate(now)}")

    def end(self) -> None:
        """See Progress."""
        if self._label is not None and self._done:
            now = self._now()
            span = duration(timedelta(seconds=now - self._began))
            self.note(f"{self._label}: {size(self._done)} in {span}, {self._rate(now)}")
        self._label = None

    def note(self, text: str) -> None:
        """See Progress."""
        logger.info("{}", text)

    def _rate(self, now: float) -> str:
        return f"{size(self._done / max(now - self._began, 1e-6))}/s"
