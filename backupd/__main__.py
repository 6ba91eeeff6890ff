"""`python -m backupd`, and what the `backupd` program runs."""

from __future__ import annotations

import gc


def main() -> None:
    """Run the command line. What it imports stays for good, so no collection looks at it, then or at the end."""
    gc.disable()
    from backupd.cli import main as run  # noqa: PLC0415  (see above)

    gc.freeze()
    gc.enable()
    run()


if __name__ == "__main__":
    main()
