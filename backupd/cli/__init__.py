"""The command line: parses, calls operations, renders what they return. No logic of its own."""

import gc
import sys

from backupd.health import quick

__all__ = ["main"]


def main() -> None:
    """Run the command line, and exit."""
    code = quick(sys.argv[1:])
    if code is not None:
        sys.exit(code)
    gc.disable()  # until all is loaded
    from backupd.cli.main import main as run  # noqa: PLC0415  (it imports most of the program)

    run()
