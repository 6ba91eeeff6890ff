"""The command line: parses, calls operations, renders what they return. No logic of its own."""

import sys

from backupd.health import quick

__all__ = ["main"]


def main() -> None:
    """Run the command line, and exit."""
    code = quick(sys.argv[1:])
    if code is not None:
        sys.exit(code)
    from backupd.cli.main import main as run  # noqa: PLC0415  (it imports the whole program)

    run()
