"""`backupd`, killed at its n-th act: `python -m tests.support.dying N before|after journal|all ARGUMENT…`.

`journal` counts writes to the journal; `all` also the steps of a swap, holds, helpers, what a drill puts up, leases,
marks, multipart uploads and what is written to and deleted from stores. With N 0 it lives, and says on its last line of
stderr which acts there were, in order; else it says there which one it was killed at.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
import threading
from typing import Any

from backupd import cli
from backupd.engine.docker.helper import Helper
from backupd.engine.docker.sandbox import DockerSandbox
from backupd.engine.docker.services import DockerServices
from backupd.journal import Journal
from backupd.lease import Lease
from backupd.mark import Mark, Marks
from backupd.restore.swap import Swap
from backupd.stores.local import LocalStore
from backupd.stores.s3 import S3Store
from backupd.stores.s3.claims import Claim
from backupd.stores.s3.upload import MultipartWriter
from backupd.stores.writing import Writer

JOURNAL: tuple[tuple[type, str], ...] = ((Journal, "begin"), (Journal, "end"))
ALL: tuple[tuple[type, str], ...] = (
    *JOURNAL,
    (Journal, "decide"),
    *((Swap, name) for name in ("prepare", "ready", "swap", "undo", "finish")),
    *((DockerServices, name) for name in ("stop", "start", "pause", "unpause")),
    *((Helper, name) for name in ("__enter__", "__exit__")),
    *((DockerSandbox, name) for name in ("volume", "copy", "start", "close")),
    *((Lease, name) for name in ("write", "release")),
    *((owner, name) for owner, name in ((Marks, "make"), (Mark, "close"), (Claim, "begun"), (Claim, "close"))),
    *((MultipartWriter, name) for name in ("_begin", "_upload", "_complete")),
    (Writer, "commit"),
    *((owner, "delete") for owner in (LocalStore, S3Store)),
    (S3Store, "put"),
)


def arm(number: int, when: str, points: str) -> list[str]:
    """From now on this process dies at its n-th act; the acts so far."""
    acts: list[str] = []
    counter = itertools.count(1)
    one_at_a_time = threading.Lock()

    def die(act: str) -> None:
        os.write(2, f"{act}\n".encode())
        os.kill(os.getpid(), signal.SIGKILL)

    def dying(owner: type, name: str) -> None:
        original = getattr(owner, name)
        act = f"{owner.__name__}.{name}"

        def method(*arguments: Any, **options: Any) -> Any:
            with one_at_a_time:
                acts.append(act)
                mine = next(counter)  # an act may consist of others
            if mine == number and when == "before":
                die(act)
            result = original(*arguments, **options)
            if mine == number:
                die(act)
            return result

        setattr(owner, name, method)

    for owner, name in ALL if points == "all" else JOURNAL:
        dying(owner, name)
    return acts


def main() -> None:
    number, when, points = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    sys.argv = ["backupd", *sys.argv[4:]]
    acts = arm(number, when, points)
    try:
        cli.main()
    finally:
        print(*acts, file=sys.stderr)


if __name__ == "__main__":
    main()
