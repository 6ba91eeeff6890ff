"""What a daemon is handed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from random import Random
from typing import Protocol

from msgspec import Struct, field

from backupd.agenda import Entry, agenda
from backupd.daemon.dispatcher import Handed
from backupd.ports import Clock
from backupd.runs import Watcher
from backupd.settings import Settings
from backupd.status import StatusSource


class Watching(Protocol):
    """All who watch the daemon under one configuration."""

    @property
    def watchers(self) -> Sequence[Watcher]:
        """Told of runs."""
        ...

    def services(self, daemon: StatusSource) -> Sequence[AbstractContextManager[object]]:
        """Entered while the configuration is in use. A BackupdError of one keeps the others from nothing."""
        ...


class Surroundings(Struct, frozen=True):
    """`load` reads the configuration (ConfigError), `log` applies what it says of the log."""

    load: Callable[[], Settings]
    log: Callable[[Settings], None]
    watching: Callable[[Settings], Watching]
    clock: Clock
    new_id: Callable[[], str]
    random: Random
    handed: Handed = field(default_factory=Handed)
    monotonic: Callable[[], float] = time.monotonic
    agenda: Callable[[Settings], list[Entry]] = agenda
