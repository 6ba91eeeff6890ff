"""How lines and tables come out: plain where nobody sees colours, by rich on a terminal."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from io import StringIO, UnsupportedOperation
from select import select
from typing import Any, Protocol, TextIO, cast

from backupd.cli.progress import LineProgress, Say
from backupd.ports import Progress

# A terminal would act upon these, and rich leaves them out as well.
_LEFT_OUT = dict.fromkeys((7, 8, 11, 12, 13))

_PATIENCE_SECONDS = 1

Styled = tuple[str, str]
"""A text and its style, which is one of rich's, or empty."""


class Face(Protocol):
    """Where a person or a file gets to see something."""

    @property
    def is_terminal(self) -> bool:
        """Whether somebody is there to see it move."""
        ...

    def line(self, *parts: Styled) -> None:
        """One line, of one or more parts."""
        ...

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[str]) -> None:
        """Columns in `right` are flush right."""
        ...

    def progress(self, say: Say) -> Progress:
        """What shows progress here; `say` prints a line."""
        ...


def face_of(stream: TextIO | None, *, vital: bool) -> Face:
    """The face of a stream, None if it was closed before we began.

    Where it is not `vital`, what can't be written is lost, and ends nothing.
    """
    if stream is None:
        return Plain(StringIO())
    stream = stream if vital else cast(TextIO, Dispensable(stream))
    if stream.isatty() or os.environ.get("FORCE_COLOR") or os.environ.get("TTY_COMPATIBLE") == "1":
        from backupd.cli.terminal import Terminal  # noqa: PLC0415  (rich takes a tenth of the time that a start takes)

        terminal = Terminal(stream)
        if terminal.is_terminal:  # which is rich's to say
            return terminal
    return Plain(stream)


class Dispensable:
    """A stream without which it goes on as well: its reader may be gone, and its disk full.

    It is written at once: what Python keeps back and cannot write would fail the program at its end.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """All of it, or what can be written."""
        try:
            descriptor = self._stream.fileno()
        except UnsupportedOperation:  # it is in memory
            return self._stream.write(text)
        with suppress(OSError):
            self._stream.flush()
            rest = text.encode(self._stream.encoding, "backslashreplace")
            while rest:
                try:
                    rest = rest[os.write(descriptor, rest) :]
                except BlockingIOError:  # whoever shares it does not want to wait, and reads slowly
                    if not select([], [descriptor], [], _PATIENCE_SECONDS)[1]:
                        break
        return len(text)

    def flush(self) -> None:
        """Nothing is kept back."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Plain:
    """Lines for files and pipes. In a table, a line is a row."""

    is_terminal = False

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def line(self, *parts: Styled) -> None:
        """See Face."""
        self._write("".join(text for text, _ in parts))

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[str]) -> None:
        """See Face."""
        self._write("\n".join(_aligned([columns, *rows], [column in right for column in columns])))

    def progress(self, say: Say) -> Progress:
        """See Face: a line for each stretch that is done."""
        return LineProgress(say)

    def _write(self, text: str) -> None:
        self._stream.write(text.translate(_LEFT_OUT) + "\n")
        self._stream.flush()


def _aligned(rows: Sequence[Sequence[str]], right: Sequence[bool]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(right))]
    return [
        "  ".join(
            cell.rjust(width) if flush else cell.ljust(width)
            for cell, width, flush in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in rows
    ]
