"""What a daemon is handed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from random import Random

from backupd.agenda import Entry, agenda
from backupd.daemon.dispatcher import Handed
from backupd.ports import Clock
from backupd.runs import Recorder
from backupd.settings import Settings
from backupd.status import StatusSource


@dataclass(frozen=True, slots=True)
class Surroundings:
    """`load` reads the configuration (ConfigError), `log` applies what it says of the log.

    `recorder` records the runs under a configuration and tells its watchers; `services` are entered with it and left
    when it is replaced.
    """

    load: Callable[[], Settings]
    log: Callable[[Settings], None]
    recorder: Callable[[Settings], Recorder]
    services: Callable[[Settings, StatusSource], Sequence[AbstractContextManager[object]]]
    clock: Clock
    new_id: Callable[[], str]
    random: Random
    handed: Handed = field(default_factory=Handed)
    monotonic: Callable[[], float] = time.monotonic
    agenda: Callable[[Settings], list[Entry]] = agenda
