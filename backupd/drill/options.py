"""What the configuration says of a volume's drills."""

from __future__ import annotations

from msgspec import Struct, field

from backupd.model import MIB
from backupd.sandbox import Limits


class Check(Struct, frozen=True):
    """A command to run in a copy, and what is expected of it.

    `service` None: in every copy that uses the volume. `expect` is a regular expression to be found in its output.
    """

    command: tuple[str, ...]
    service: str | None = None
    user: str | None = None
    expect: str | None = None
    exit_code: int = 0
    timeout_seconds: float = 60


class DrillOptions(Struct, frozen=True):
    """How a volume is drilled.

    `start`: copies of services are started, those of `services` or, if that is empty, all that write to the volume.
    `ready_seconds` is how long a copy may take until it is healthy, `steady_seconds` how long one without a health
    check has to keep running, `probe_seconds` how long the built-in probes of one service or database may take.
    `largest_shrink` is the part of rows, keys, files or bytes, from 0 to 1, that may be gone since the drill before.
    Databases of SQLite above `sqlite_limit_bytes` are not looked into where they have to be copied for that.
    """

    start: bool = True
    services: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    limits: Limits = field(default_factory=Limits)
    ready_seconds: float = 300
    steady_seconds: float = 5
    probe_seconds: float = 900
    largest_shrink: float = 0.5
    sqlite_limit_bytes: int = 1024 * MIB
