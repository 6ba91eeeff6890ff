"""`backupd recover`."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from backupd.cli.options import Session, command
from backupd.jobs.recover import run_recover
from backupd.recover import Recovery


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, "recover")
    def recover_(session: Session) -> None:
        """Finish or undo what a killed backupd left half-done. Safe to run at any time."""
        with session.recorder().run("recover") as draft:
            done, errors = run_recover(session.site, draft)
            _show(session, done)
            if errors:
                raise errors[0]
            if not done:
                session.output.line("nothing was left half-done")


def _show(session: Session, done: Sequence[Recovery]) -> None:
    session.output.document({"recovered": done})
    for recovery in done:
        session.output.line(f"{recovery.subject}: {recovery.outcome}")
