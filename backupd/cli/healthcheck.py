"""`backupd healthcheck`: what `backupd.health` can't answer at once."""

from __future__ import annotations

import typer

from backupd.cli.options import Session, command
from backupd.health import complaint


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, "healthcheck")
    def healthcheck(session: Session) -> None:
        """Whether the daemon lives and moves: exit code 0, else 1. For a container's HEALTHCHECK."""
        trouble = complaint(session.settings.state_dir)
        session.output.document({"healthy": trouble is None, "problem": trouble})
        if trouble is None:
            session.output.line("the daemon is well")
            return
        session.output.error(trouble, None)
        raise typer.Exit(1)
