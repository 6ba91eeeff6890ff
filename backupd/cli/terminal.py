"""A terminal's face: colours, tables that fit, and bars, by rich."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TextIO

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
from rich.table import Table
from rich.text import Text

from backupd.cli.face import Styled
from backupd.cli.progress import LineProgress, Say
from backupd.ports import Progress


class Terminal:
    """See Face. Also a stream that is none, where FORCE_COLOR or TTY_COMPATIBLE asks for colours."""

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(file=stream, highlight=False, soft_wrap=True)

    @property
    def is_terminal(self) -> bool:
        """See Face."""
        return self._console.is_terminal

    def line(self, *parts: Styled) -> None:
        """See Face."""
        self._console.print(Text.assemble(*parts))

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[str]) -> None:
        """See Face."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in columns:
            table.add_column(column, justify="right" if column in right else "left", overflow="fold")
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        self._console.print(table, soft_wrap=False)

    def progress(self, say: Say) -> Progress:
        """See Face."""
        return BarProgress(self._console, say) if self.is_terminal else LineProgress(say)


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
