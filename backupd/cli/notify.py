"""`backupd notify test`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from backupd import __version__
from backupd.cli.options import Session, command
from backupd.errors import ConfigError, DeliveryFailed, PartialFailure
from backupd.log import Redactor
from backupd.notify.events import Event
from backupd.notify.notifier import Receiver
from backupd.notify.ping import call
from backupd.observe import make_targets, make_texts
from backupd.wiring import secret_values

_EVENT = Event("success", "this is a test", ("Notifications of backupd arrive here.",))


def register(app: typer.Typer) -> None:
    """Add the command."""
    group = typer.Typer(no_args_is_help=True, help="Notifications.")
    app.add_typer(group, name="notify")

    @command(group, "test")
    def test(
        session: Session,
        pings: Annotated[
            bool, typer.Option("--pings", help="Also ping the success URL of every plan that has one.")
        ] = False,
    ) -> None:
        """Send a test to every target, whatever it wants to be told, and say which of them took it.

        Exit code 0: all did; 3: some did; 1: none did.
        """
        sends = _sends(session, pings=pings)
        if not sends:
            raise ConfigError("there is nobody to notify", hint="notifications.targets names who is told")
        failures = {name: error for name, send in sends if (error := _tried(session, name, send))}
        session.output.document(
            {"receivers": [{"name": name, "error": failures.get(name)} for name, _ in sends], "failed": len(failures)}
        )
        if failures:
            message = f"{len(failures)} of {len(sends)} did not take it: {', '.join(failures)}"
            raise PartialFailure(message) if len(failures) < len(sends) else DeliveryFailed(message)


def _sends(session: Session, *, pings: bool) -> Sequence[tuple[str, Callable[[], None]]]:
    """By receiver's name, how it is told."""
    settings = session.settings
    title, body = make_texts(settings).render(_EVENT)
    timeout = settings.notifications.timeout.total_seconds()

    def notify(receiver: Receiver) -> Callable[[], None]:
        return lambda: receiver.send("success", title, body)

    def ping(url: str, method: str) -> Callable[[], None]:
        return lambda: call(url, method, b"this is a test", timeout, f"backupd/{__version__}")

    sends = [
        (f"target {target.name}", notify(target.receiver))
        for target in make_targets(settings, Redactor(secret_values(settings)))
    ]
    for name, plan in settings.plans.items() if pings else ():
        urls = plan.ping.urls()
        if urls is not None and urls.success is not None:
            sends.append((f"ping {name}", ping(urls.success, urls.method)))
    return sends


def _tried(session: Session, name: str, send: Callable[[], None]) -> str | None:
    try:
        send()
    except DeliveryFailed as exc:
        session.output.line(f"{name}: {exc}", style="red")
        return str(exc)
    session.output.line(f"{name}: delivered")
    return None
