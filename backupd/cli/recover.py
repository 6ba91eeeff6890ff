"""`backupd recover`."""

from __future__ import annotations

import typer

from backupd import recover
from backupd.backup import sweep
from backupd.cli.options import Session, command
from backupd.engine import MountedEngine


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, "recover")
    def recover_(session: Session) -> None:
        """Finish or undo what a killed backupd left half-done. Safe to run at any time."""
        runtime = session.runtime()
        specs = [session.settings.volume_spec(name) for name in session.settings.volumes]
        done = [*recover.recover(runtime, specs)]
        if session.settings.engine != "mounted":  # an interrupted restore --to-dir
            done += recover.recover(session.runtime(MountedEngine(session.settings.state_dir / "scratch")))
        for store in session.stores(tuple(session.settings.stores)):
            sweep(store, runtime)
            done += [
                recover.Recovery(f"store {store.name}", f"let go of: {lease}")
                for lease in runtime.leases(store).release_dead()
            ]
        session.output.document({"recovered": done})
        for recovery in done:
            session.output.line(f"{recovery.subject}: {recovery.outcome}")
        if not done:
            session.output.line("nothing was left half-done")
