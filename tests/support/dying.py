"""`backupd`, killed at its n-th act: `python -m tests.support.dying N before|after journal|all ARGUMENT…`.

`journal` counts writes to the journal; `all` also the steps of a swap, stops and starts, and what is written to and
deleted from a local store. With N 0 it lives, and says on its last line of stderr which acts there were, in order.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from backupd import cli
from backupd.engine.docker.services import DockerServices
from backupd.journal import Journal
from backupd.restore import Swap
from backupd.stores.local import LocalStore
from backupd.stores.writing import Writer

JOURNAL: tuple[tuple[type, str], ...] = ((Journal, "begin"), (Journal, "end"))
ALL: tuple[tuple[type, str], ...] = (
    *JOURNAL,
    (Journal, "decide"),
    *((Swap, name) for name in ("prepare", "ready", "swap", "undo", "finish")),
    *((DockerServices, name) for name in ("stop", "start")),
    *((Writer, name) for name in ("commit",)),
    (LocalStore, "delete"),
)


def main() -> None:
    number, when, points = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    sys.argv = ["backupd", *sys.argv[4:]]
    acts: list[str] = []

    def dying(owner: type, name: str) -> None:
        original = getattr(owner, name)

        def method(*arguments: Any, **options: Any) -> Any:
            acts.append(name)
            mine = len(acts)  # an act may consist of others
            if mine == number and when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            result = original(*arguments, **options)
            if mine == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        setattr(owner, name, method)

    for owner, name in ALL if points == "all" else JOURNAL:
        dying(owner, name)
    try:
        cli.main()
    finally:
        print(*acts, file=sys.stderr)


if __name__ == "__main__":
    main()
