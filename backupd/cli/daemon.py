"""`backupd run`."""

from __future__ import annotations

from random import SystemRandom

import typer
from loguru import logger

from backupd.cli.options import Session, command
from backupd.daemon.daemon import Daemon
from backupd.daemon.dispatcher import Handed
from backupd.daemon.surroundings import Surroundings
from backupd.log import configure
from backupd.settings import Settings, load_settings
from backupd.web.making import Watched
from backupd.wiring import SystemClock, new_id, refuse_unavailable, secret_values


def register(app: typer.Typer) -> None:
    """Add the commands."""

    @command(app, "run")
    def run(session: Session) -> None:
        """Be the daemon: run what schedules ask for, until SIGTERM or SIGINT.

        SIGHUP reads the configuration anew; a broken one is refused, and the old one goes on. A second SIGTERM aborts
        what is under way at once. Exit code 11: another daemon has the state directory.
        """
        clock = SystemClock()
        level = "debug" if session.verbose else None

        def load() -> Settings:
            settings = load_settings(session.config)
            refuse_unavailable(settings)
            return settings

        Daemon(
            Surroundings(
                load=load,
                log=lambda settings: configure(settings.log, secret_values(settings), level=level),
                watching=lambda settings: Watched(settings, clock, logger.warning),
                clock=clock,
                new_id=new_id,
                random=SystemRandom(),
                handed=Handed(session.identity, level),
            )
        ).run()
