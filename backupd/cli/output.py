"""What a command prints: tables and lines for people, one JSON document for programs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from backupd.cli.progress import QuietProgress, make_progress
from backupd.ports import Progress
from backupd.repository import Manifest


class Output:
    """Standard output is for results, standard error for everything else."""

    def __init__(self, *, json: bool) -> None:
        self.json = json
        self._out = Console(highlight=False, soft_wrap=True)
        self._err = Console(stderr=True, highlight=False, soft_wrap=True)
        self._documented = False
        self.redact: Callable[[str], str] = str
        self.progress: Progress = QuietProgress(self._note) if json else make_progress(self._err, self._note)

    @property
    def interactive(self) -> bool:
        """Whether a person can be asked."""
        return sys.stdin.isatty() and sys.stderr.isatty() and not self.json

    def document(self, document: Any) -> None:
        """The one JSON document, if that is what was asked for."""
        if self.json:
            self._documented = True
            sys.stdout.write(msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n")

    def line(self, text: str = "", style: str = "") -> None:
        """A line of the result, for people."""
        if not self.json:
            self._out.print(Text(text, style=style))

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[str] = ()) -> None:
        """A table, for people; columns in `right` are flush right. In a pipe, a line is a row."""
        if self.json:
            return
        if not self._out.is_terminal:
            for line in _aligned([columns, *rows], [column in right for column in columns]):
                self._out.print(Text(line))
            return
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in columns:
            table.add_column(column, justify="right" if column in right else "left", overflow="fold")
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        self._out.print(table, soft_wrap=False)

    def warn(self, text: str) -> None:
        """A line on standard error."""
        self._err.print(Text(f"warning: {self.redact(text)}", style="yellow"))

    def error(self, message: str, hint: str | None, causes: Sequence[str] = ()) -> None:
        """What went wrong and what to do about it, on standard error."""
        self._err.print(Text.assemble(("error: ", "bold red"), self.redact(message)))
        for cause in causes:
            self._err.print(Text(f"  because of {self.redact(cause)}", style="dim"))
        if hint:
            self._err.print(Text.assemble(("hint: ", "bold"), self.redact(hint)))

    def fail(self, message: str, hint: str | None, exit_code: int) -> None:
        """The same for programs, unless they have got a document already."""
        if not self._documented:
            told = self.redact(hint) if hint else None
            self.document({"error": self.redact(message), "hint": told, "exit_code": exit_code})

    def _note(self, text: str) -> None:
        self._err.print(Text(self.redact(text)))

    def detail(self, text: str) -> None:
        """A line on standard error that is not needed."""
        self._err.print(Text(self.redact(text), style="dim"))

    def close(self) -> None:
        """End what is still being drawn."""
        self.progress.end()


def described(manifest: Manifest) -> dict[str, Any]:
    """A manifest for programs: as it is stored, but `encryption` says whether its private part was read with a key."""
    tree: dict[str, Any] = msgspec.to_builtins(manifest)
    if manifest.encryption is not None:
        tree["encryption"] = {"recipients": manifest.encryption.recipients, "opened": not manifest.hidden}
    return tree


def _aligned(rows: Sequence[Sequence[str]], right: Sequence[bool]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(right))]
    return [
        "  ".join(
            cell.rjust(width) if flush else cell.ljust(width)
            for cell, width, flush in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in rows
    ]
