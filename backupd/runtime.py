"""What every operation is handed: the collaborators that wiring chose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from backupd.ports import Clock, Engine, Progress


@dataclass(frozen=True, slots=True)
class Runtime:
    """`threads` compress and fetch; `new_id` makes snapshot ids; `state` is a directory of this machine's own."""

    engine: Engine
    progress: Progress
    clock: Clock
    new_id: Callable[[], str]
    threads: int
    host: str
    program: str
    state: Path

    @property
    def locks(self) -> Path:
        """Where volume locks are."""
        return self.state / "locks"
