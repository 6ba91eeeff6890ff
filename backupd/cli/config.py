"""`backupd config check` and `backupd config show`."""

from __future__ import annotations

import typer
import yaml

from backupd import settings
from backupd.cli import words
from backupd.cli.options import Session, command


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(no_args_is_help=True, help="Look at the configuration.")
    app.add_typer(group, name="config")

    @command(group, "check")
    def check(session: Session) -> None:
        """Say whether the configuration can be used, and everything that is wrong with it."""
        loaded = session.settings
        session.output.document({"valid": True, "plans": list(loaded.plans), "stores": list(loaded.stores)})
        session.output.line(
            f"the configuration is valid: {words.count(len(loaded.volumes), 'volume')},"
            f" {words.count(len(loaded.plans), 'plan')}, {words.count(len(loaded.stores), 'store')}"
        )

    @command(group, "show")
    def show(session: Session) -> None:
        """The configuration as backupd sees it, without its secrets."""
        shown = settings.show(session.settings)
        session.output.document(shown)
        session.output.line(yaml.safe_dump(shown, sort_keys=False, allow_unicode=True).rstrip())
