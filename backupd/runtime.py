"""What every operation is handed: the collaborators that wiring chose."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from msgspec import Struct, field

from backupd.lease import Holder, Leases
from backupd.model import Volume, VolumeSpec
from backupd.ports import Clock, Engine, Progress, Store
from backupd.security import Security
from backupd.services import Choice, Source, Together


class Runtime(Struct, frozen=True):
    """`threads` compress and fetch; `new_id` makes snapshot ids; `state` is a directory of this machine's own.

    `lock_wait` is how long to wait for a store that another backupd prunes or, for pruning, writes;
    `volume_wait_seconds` the same for a volume that another one works on.
    """

    engine: Engine
    progress: Progress
    clock: Clock
    new_id: Callable[[], str]
    threads: int
    host: str
    program: str
    state: Path
    strategies: Strategies
    lock_wait: timedelta = timedelta()
    volume_wait_seconds: float = 0
    security: Security = field(default_factory=Security)

    @property
    def locks(self) -> Path:
        """Where volume locks are."""
        return self.state / "locks"

    def leases(self, store: Store) -> Leases:
        """The leases of a store, as this process takes them."""
        holder = Holder(self.host, self.program, os.getpid())
        return Leases(store, self.clock, self.new_id, holder, self.state / "leases", self.progress, self.lock_wait)


class Strategies(Protocol):
    """The ways to read a volume beside the services that use it."""

    def choose(self, spec: VolumeSpec, volume: Volume, runtime: Runtime) -> Choice:
        """The way that configuration, labels or the containers that use the volume call for."""
        ...

    def together(self, sources: Sequence[tuple[Choice, Source]], runtime: Runtime) -> Together:
        """Read these volumes at one moment. Nothing is touched before the block is entered."""
        ...
