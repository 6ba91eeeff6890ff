"""`backupd recover`."""

from __future__ import annotations

from functools import partial

import typer

from backupd import recover
from backupd.cli.options import Session, command
from backupd.engine import MountedEngine
from backupd.errors import BackupdError


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, "recover")
    def recover_(session: Session) -> None:
        """Finish or undo what a killed backupd left half-done. Safe to run at any time."""
        runtime = session.runtime()
        specs = [session.settings.volume_spec(name) for name in session.settings.volumes]
        stores = session.stores(tuple(session.settings.stores))
        parts = [partial(recover.recover, runtime, specs)]
        if session.settings.engine != "mounted":  # an interrupted restore --to-dir
            here = session.runtime(MountedEngine(session.settings.state_dir / "scratch"))
            parts.append(partial(recover.recover, here))
        parts.append(partial(recover.recover_stores, runtime, stores))
        done: list[recover.Recovery] = []
        errors: list[BackupdError] = []
        for part in parts:  # an engine that does not answer is no reason to leave leases behind
            try:
                done += part()
            except BackupdError as exc:
                errors.append(exc)
        session.output.document({"recovered": done})
        for recovery in done:
            session.output.line(f"{recovery.subject}: {recovery.outcome}")
        if errors:
            raise errors[0]
        if not done:
            session.output.line("nothing was left half-done")
