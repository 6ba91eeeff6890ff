"""The program: commands, exit codes, signals."""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
from types import FrameType
from typing import Annotated, Any, TextIO

import typer

from backupd import __version__
from backupd.cli.options import EVERYWHERE_FLAGS, EVERYWHERE_VALUES
from backupd.cli.output import Output
from backupd.errors import BackupdError, Interrupted, UsageError
from backupd.process import let_threads_alternate

_BROKEN_PIPE = 141

# What Typer raises for a wrong command line; it exports the class's descendants only.
_UsageError: Any = typer.BadParameter.__bases__[0]

COMMANDS = {
    "daemon": ("run",),
    "backup": ("backup",),
    "snapshots": ("list", "show"),
    "restore": ("restore",),
    "browse": ("ls", "cat", "diff"),
    "transfer": ("export", "import"),
    "verify": ("verify",),
    "drill": ("drill",),
    "prune": ("prune",),
    "recover": ("recover",),
    "schedule": ("schedule",),
    "history": ("history",),
    "healthcheck": ("healthcheck",),
    "doctor": ("doctor",),
    "notify": ("notify",),
    "config": ("config",),
    "keys": ("keygen", "trust"),
    "socketproxy": ("socket-proxy",),
}
"""The commands of the modules of this package that have some, in the order of `--help`."""


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"backupd {__version__}")
        raise typer.Exit


def make_app(named: str | None = None) -> typer.Typer:
    """The program with all its commands, or only those of the module that has the one named.

    Loading those of all commands takes a tenth of a second longer than those of `backup`, and a small one takes four.
    """
    app = typer.Typer(
        name="backupd",
        help="Backups of a Docker Compose stack's volumes: deduplicated, checked, and restored with one command.",
        no_args_is_help=True,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    for module in [module for module, commands in COMMANDS.items() if named in commands] or COMMANDS:
        importlib.import_module(f"backupd.cli.{module}").register(app)
    return app


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line and exit with the code of what went wrong, if anything did."""
    signal.signal(signal.SIGTERM, _terminated)
    let_threads_alternate()
    code = _run(_arguments(sys.argv[1:]))
    _give_up_stderr()
    sys.exit(code)


def _give_up_stderr() -> None:
    """What the log could not write there is lost; Python would end with 120 because of it, whatever has been done."""
    try:
        if sys.stderr is not None:
            sys.stderr.flush()
    except OSError:
        _let_go(sys.stderr)


def _let_go(stream: TextIO) -> None:
    """What Python has kept back for it goes nowhere: else it would try once more at exit, and complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _run(arguments: list[str]) -> int:
    output = Output(json="--json" in arguments)
    completing = "_BACKUPD_COMPLETE" in os.environ
    try:
        app = make_app(arguments[0] if arguments and not completing else None)
        gc.freeze()  # what has been loaded stays for good: no collection looks at it, now or at the end
        gc.enable()
        code = app(prog_name="backupd", args=arguments, standalone_mode=False)
    except _UsageError as exc:
        if not exc.format_message():  # no arguments at all: the help has been printed
            return UsageError.exit_code
        hint = _usage_hint(exc)
        output.error(exc.format_message(), hint)
        output.fail(exc.format_message(), hint, UsageError.exit_code)
        return UsageError.exit_code
    except BrokenPipeError:
        _let_go(sys.stdout)  # its reader is gone (`| head`): nobody to tell
        return _BROKEN_PIPE
    except OSError as exc:
        output.error(f"{exc.strerror or exc}{f': {exc.filename}' if exc.filename else ''}", None)
        return BackupdError.exit_code
    except (KeyboardInterrupt, typer.Abort):
        code = Interrupted.exit_code
    if code == Interrupted.exit_code:  # Typer turns a KeyboardInterrupt into this, too
        output.error(
            "interrupted", "`backupd recover` finishes or undoes what could not be undone in time, if anything"
        )
    return code if isinstance(code, int) else 0


def _usage_hint(error: Any) -> str:
    """Where to read on: of the command, if it is known which."""
    context = error.ctx
    if context is None or context.parent is None:
        return "`backupd --help` lists the commands, `backupd COMMAND --help` their options"
    return f"`{context.command_path} --help` says what it takes"


def _arguments(given: list[str]) -> list[str]:
    """The arguments as Typer takes them.

    It knows no option whose value may be left out (`--read-data` alone means all of it), and it wants the options of
    everywhere behind the command.
    """
    arguments = ["--read-data=100" if argument == "--read-data" else argument for argument in given]
    early: list[str] = []
    while arguments and arguments[0].split("=")[0] in (*EVERYWHERE_VALUES, *EVERYWHERE_FLAGS):
        count = 2 if arguments[0] in EVERYWHERE_VALUES else 1
        early += arguments[:count]
        del arguments[:count]
    end = arguments.index("--") if "--" in arguments else len(arguments)
    return [*arguments[:end], *early, *arguments[end:]]


def _terminated(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
