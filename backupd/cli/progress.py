"""Progress: a bar with rate and time left on a terminal, plain lines elsewhere, nothing for programs."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as RichBars

from backupd.cli.words import duration, size
from backupd.ports import Progress

Say = Callable[[str], None]


def make_progress(console: Console, say: Say) -> Progress:
    """The kind of progress that the console can show; `say` prints a line there."""
    return BarProgress(console, say) if console.is_terminal else LineProgress(say)


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


class BarProgress:
    """A bar for what is being done, lines above it for what is done."""

    def __init__(self, console: Console, say: Say) -> None:
        self._console = console
        self._lines = LineProgress(say)
        self._bars: RichBars | None = None
        self._task: TaskID | None = None

    def begin(self, label: str, total: int | None = None) -> None:
        """See Progress."""
        self._lines.begin(label, total)
        self._bars = RichBars(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        self._bars.start()
        self._task = self._bars.add_task(label, total=total)

    def advance(self, count: int) -> None:
        """See Progress."""
        self._lines.advance(count)
        if self._bars is not None and self._task is not None:
            self._bars.advance(self._task, count)

    def end(self) -> None:
        """See Progress."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None
        self._lines.end()

    def note(self, text: str) -> None:
        """See Progress."""
        self._lines.note(text)
