"""`backupd socket-proxy`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from backupd.cli.options import Session, command
from backupd.wiring import make_socket_proxy

LISTEN = Path("/run/backupd/docker.sock")
ENGINE = Path("/var/run/docker.sock")


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, "socket-proxy")
    def socket_proxy(
        session: Session,
        listen: Annotated[Path, typer.Option(help="The socket to make, for this user alone.")] = LISTEN,
        engine: Annotated[Path, typer.Option(help="The Docker Engine's socket.")] = ENGINE,
        container: Annotated[
            list[str] | None,
            typer.Option(metavar="NAME", help="A container outside of the project that is treated as a service of it."),
        ] = None,
    ) -> None:
        """Stand between backupd and Docker: let through what it calls on the configured project, refuse all else."""
        proxy = make_socket_proxy(session.settings, listen, str(engine), frozenset(container or ()))
        session.output.line(f"listening at {listen} for project {session.settings.project}")
        try:
            proxy.serve_forever()
        finally:
            proxy.server_close()
            listen.unlink(missing_ok=True)
