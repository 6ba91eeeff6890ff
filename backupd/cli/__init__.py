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
    gc.disable()  # what is imported stays for good, so no collection looks at it, then or at the end
    from backupd.cli.main import main as run  # noqa: PLC0415  (it imports the whole program)

    gc.freeze()
    gc.enable()
    run()
