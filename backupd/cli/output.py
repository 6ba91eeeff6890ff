"""What a command prints: tables and lines for people, one JSON document for programs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from backupd.cli.face import face_of
from backupd.cli.progress import QuietProgress
from backupd.ports import Progress
from backupd.repository import Manifest


class Output:
    """Standard output is for results, standard error for everything else."""

    def __init__(self, *, json: bool) -> None:
        self.json = json
        self._out = face_of(sys.stdout, vital=True)
        self._err = face_of(sys.stderr, vital=False)
        self._documented = False
        self.redact: Callable[[str], str] = str
        self.progress: Progress = QuietProgress(self._note) if json else self._err.progress(self._note)

    @property
    def interactive(self) -> bool:
        """Whether a person can be asked."""
        return sys.stdin.isatty() and sys.stderr.isatty() and not self.json

    def document(self, document: Any) -> None:
        """The one JSON document, if that is what was asked for."""
        if self.json:
            self._documented = True
            print(msgspec.json.format(msgspec.json.encode(document), indent=2).decode())

    def line(self, text: str = "", style: str = "") -> None:
        """A line of the result, for people."""
        if not self.json:
            self._out.line((text, style))

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[str] = ()) -> None:
        """A table, for people; columns in `right` are flush right. In a pipe, a line is a row."""
        if not self.json:
            self._out.table(columns, rows, right)

    def warn(self, text: str) -> None:
        """A line on standard error."""
        self._err.line((f"warning: {self.redact(text)}", "yellow"))

    def error(self, message: str, hint: str | None, causes: Sequence[str] = ()) -> None:
        """What went wrong and what to do about it, on standard error."""
        self._err.line(("error: ", "bold red"), (self.redact(message), ""))
        for cause in causes:
            self._err.line((f"  because of {self.redact(cause)}", "dim"))
        if hint:
            self._err.line(("hint: ", "bold"), (self.redact(hint), ""))

    def fail(self, message: str, hint: str | None, exit_code: int) -> None:
        """The same for programs, unless they have got a document already."""
        if not self._documented:
            told = self.redact(hint) if hint else None
            self.document({"error": self.redact(message), "hint": told, "exit_code": exit_code})

    def _note(self, text: str) -> None:
        self._err.line((self.redact(text), ""))

    def detail(self, text: str) -> None:
        """A line on standard error that is not needed."""
        self._err.line((self.redact(text), "dim"))

    def close(self) -> None:
        """End what is still being drawn."""
        self.progress.end()


def described(manifest: Manifest) -> dict[str, Any]:
    """A manifest for programs: as it is stored, but `encryption` says whether its private part was read with a key."""
    tree: dict[str, Any] = msgspec.to_builtins(manifest)
    if manifest.encryption is not None:
        tree["encryption"] = {"recipients": manifest.encryption.recipients, "opened": not manifest.hidden}
    return tree
