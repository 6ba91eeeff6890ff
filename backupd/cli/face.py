"""How lines and tables come out: plain where nobody sees colours, by rich on a terminal."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from io import StringIO
from typing import Protocol, TextIO

from backupd.cli.progress import LineProgress, Say
from backupd.ports import Progress

# rich shows colours in a pipe, too, if one of these asks for it.
_ASKING = ("FORCE_COLOR", "TTY_COMPATIBLE")
# A terminal would act upon these, and rich leaves them out as well.
_LEFT_OUT = dict.fromkeys((7, 8, 11, 12, 13))

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
        return Plain(StringIO(), vital=vital)
    if stream.isatty() or any(os.environ.get(name) for name in _ASKING):
        from backupd.cli.terminal import Terminal  # noqa: PLC0415  (rich takes a tenth of the time that a start takes)

        return Terminal(stream)
    return Plain(stream, vital=vital)


class Plain:
    """Lines for files and pipes. In a table, a line is a row."""

    is_terminal = False

    def __init__(self, stream: TextIO, *, vital: bool) -> None:
        self._stream = stream
        self._vital = vital

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
        try:
            self._stream.write(text.translate(_LEFT_OUT) + "\n")
            self._stream.flush()
        except BrokenPipeError:
            if self._vital:
                raise
            # Nobody reads it any more. Python would complain again at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
        except OSError:  # the disk that it goes to is full, say
            if self._vital:
                raise


def _aligned(rows: Sequence[Sequence[str]], right: Sequence[bool]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(right))]
    return [
        "  ".join(
            cell.rjust(width) if flush else cell.ljust(width)
            for cell, width, flush in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in rows
    ]
