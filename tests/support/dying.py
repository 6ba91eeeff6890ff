"""`backupd`, killed at its n-th write to the journal: `python -m tests.support.dying N before|after ARGUMENT…`.

With N 0 it lives, and says on its last line of stderr which there were: `begin` or `end`, in order.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from backupd import cli
from backupd.journal import Journal


def main() -> None:
    number, when = int(sys.argv[1]), sys.argv[2]
    sys.argv = ["backupd", *sys.argv[3:]]
    writes: list[str] = []

    def dying(name: str) -> None:
        original = getattr(Journal, name)

        def method(self: Journal, *arguments: Any, **options: Any) -> Any:
            writes.append(name)
            if len(writes) == number and when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            result = original(self, *arguments, **options)
            if len(writes) == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        setattr(Journal, name, method)

    for name in ("begin", "end"):
        dying(name)
    try:
        cli.main()
    finally:
        print(*writes, file=sys.stderr)


if __name__ == "__main__":
    main()
