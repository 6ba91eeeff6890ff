"""A restore in a process of its own that kills itself ahead of its n-th act: a write to the journal, a step of a swap,
a stop, a start. `python -m tests.support.dying_restore JSON`; without `kill_at` it prints the acts, a line each.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from backupd.engine import DockerEngine, DockerOptions
from backupd.engine.docker.services import DockerServices
from backupd.errors import BackupdError
from backupd.journal import Journal
from backupd.model import VolumeSpec
from backupd.repository import Repository
from backupd.restore.operation import restore
from backupd.restore.swap import Swap
from backupd.restore.target import RestoreRequest, plan_restore
from backupd.runtime import Runtime
from backupd.stores.local import LocalStore
from tests.support.runtime import make_runtime

POINTS: tuple[tuple[type, str], ...] = (
    *((Journal, name) for name in ("begin", "decide", "end")),
    *((Swap, name) for name in ("prepare", "ready", "swap", "undo", "finish")),
    *((DockerServices, name) for name in ("stop", "start", "pause", "unpause")),
)


class Death:
    """Comes at the n-th point; never for 0."""

    def __init__(self, at: int) -> None:
        self._at = at
        self.passed: list[str] = []

    def await_at(self, owner: type, name: str) -> None:
        original: Callable[..., Any] = getattr(owner, name)

        def call(*arguments: Any, **options: Any) -> Any:
            self.passed.append(f"{owner.__name__}.{name}")
            if len(self.passed) == self._at:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments, **options)

        setattr(owner, name, call)


def runtime_of(base: Path, host: str, image: str) -> Runtime:
    options = DockerOptions(host=host, helper_image=image, pipe_directory=base / "pipes")
    return make_runtime(base / "state", DockerEngine(options))


def main(given: dict[str, Any]) -> None:
    """`base`, `host`, `image`, `volumes` (name to Docker volume), `within`, `kill_at`."""
    base = Path(given["base"])
    runtime = runtime_of(base, given["host"], given["image"])
    death = Death(given.get("kill_at", 0))
    repository = Repository.open(LocalStore("local", base / "store"), threads=2)
    manifest = repository.resolve("latest")
    request = RestoreRequest(safety_snapshot=False, healthy_within_seconds=given["within"])
    specs = {name: VolumeSpec(name, volume=volume) for name, volume in given["volumes"].items()}
    steps = plan_restore(request, manifest, repository, runtime, specs)
    for owner, name in POINTS:
        death.await_at(owner, name)
    print("begins", flush=True)
    try:
        restore(steps, request, repository, runtime)
    except BackupdError as exc:
        print(f"failed: {exc}", file=sys.stderr)
    print("\n".join(death.passed))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
