"""The program: commands, exit codes, signals."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from backupd import __version__
from backupd.cli import backup, browse, config, recover, restore, snapshots, transfer, verify
from backupd.errors import BackupdError, Interrupted

_BROKEN_PIPE = 141

app = typer.Typer(
    name="backupd",
    help="Backups of a Docker Compose stack's volumes: scheduled, deduplicated, and restored with one command.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"backupd {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


for _module in (backup, snapshots, restore, browse, transfer, verify, recover, config):
    _module.register(app)


def main() -> None:
    """Run the command line and exit with the code of what went wrong, if anything did."""
    signal.signal(signal.SIGTERM, _terminated)
    # Typer knows no option whose value may be left out: `--read-data` alone means all of it.
    try:
        app(
            prog_name="backupd",
            args=["--read-data=100" if argument == "--read-data" else argument for argument in sys.argv[1:]],
        )
    except BackupdError as exc:
        _complain(exc)
        sys.exit(exc.exit_code)
    except KeyboardInterrupt:
        _complain(Interrupted("interrupted; nothing half-done was left behind"))
        sys.exit(Interrupted.exit_code)
    except BrokenPipeError:
        # The reader of our output is gone (`| head`): nobody to tell. Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(_BROKEN_PIPE)


def _terminated(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _complain(error: BackupdError) -> None:
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(Text.assemble(("error: ", "bold red"), str(error)))
    if error.hint:
        console.print(Text.assemble(("hint: ", "bold"), error.hint))
