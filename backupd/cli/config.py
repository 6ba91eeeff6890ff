"""`backupd config check` and `backupd config show`."""

from __future__ import annotations

import typer
import yaml

from backupd import settings
from backupd.cli import words
from backupd.cli.options import Session, command
from backupd.errors import BackupdError
from backupd.log import Redactor
from backupd.wiring import joined_plan, secret_values, unprepared_runtime


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(no_args_is_help=True, help="Look at the configuration.")
    app.add_typer(group, name="config")

    @command(group, "check")
    def check(session: Session) -> None:
        """Say whether the configuration can be used, and everything that is wrong with it."""
        loaded = session.settings
        if loaded.notifications.targets:  # Apprise takes a while
            from backupd.observe import make_targets  # noqa: PLC0415

            make_targets(loaded, Redactor(secret_values(loaded)))
        session.output.document({"valid": True, "plans": list(loaded.plans), "stores": list(loaded.stores)})
        session.output.line(
            f"the configuration is valid: {words.count(len(loaded.volumes), 'volume')},"
            f" {words.count(len(loaded.plans), 'plan')}, {words.count(len(loaded.stores), 'store')}"
        )

    @command(group, "show")
    def show(session: Session) -> None:
        """The configuration as backupd sees it, without its secrets, and how each volume will be read, and why."""
        shown = settings.show(session.settings)
        if session.output.json:
            session.output.document({**shown, "strategies": _strategies(session)})
            return
        session.output.line(yaml.safe_dump(shown, sort_keys=False, allow_unicode=True).rstrip())
        session.output.line("# how volumes are read")
        for name, answer in _strategies(session).items():
            why = f"{answer['strategy']}: {answer['why']}" if "strategy" in answer else f"not known: {answer['error']}"
            session.output.line(f"#   {name}: {why}")


def _strategies(session: Session) -> dict[str, dict[str, str]]:
    """By volume, those that labels add included: the strategy and why, or the error that asking ends with."""
    runtime = unprepared_runtime(session.settings, session.output.progress)
    session.closing(runtime.engine)
    specs = {name: session.settings.volume_spec(name) for name in session.settings.volumes}
    answers: dict[str, dict[str, str]] = {}
    try:
        for plan in session.settings.plans:
            found = joined_plan(session.settings, plan, runtime.engine)
            specs |= {spec.name: spec for spec in found.volumes}
    except BackupdError as exc:
        answers["volumes with labels"] = {"error": str(exc)}
    for name, spec in specs.items():
        try:
            choice = runtime.strategies.choose(spec, runtime.engine.find(spec), runtime)
            answers[name] = {"strategy": choice.strategy.name, "why": choice.why}
        except BackupdError as exc:
            answers[name] = {"error": str(exc)}
    return answers
