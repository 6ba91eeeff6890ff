"""What the running daemon is about: as an object for those who live in its process, as a file for all others."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from backupd.history import RunKind, Trigger
from backupd.malformed import MALFORMED
from backupd.process import alive
from backupd.statefile import read_private, write_private

BEAT_SECONDS = 10.0
"""How often the daemon's main loop says that it lives."""

_DEAD_AFTER = timedelta(seconds=6 * BEAT_SECONDS)


class NextRun(msgspec.Struct, frozen=True, kw_only=True):
    """What a schedule starts next. `at` is in UTC and includes jitter, if that is known already."""

    kind: RunKind
    plan: str | None
    schedule: str
    timezone: str
    at: datetime


class Activity(msgspec.Struct, frozen=True, kw_only=True):
    """A run of the daemon's that is under way, or waits, and why, in words; then it has no id yet."""

    kind: RunKind
    plan: str | None
    trigger: Trigger
    since: datetime
    id: str | None = None
    waits_for: str | None = None

    @property
    def state(self) -> Literal["running", "waiting"]:
        """Which of the two."""
        return "waiting" if self.waits_for else "running"

    def described(self) -> dict[str, object]:
        """As programs are told of it, by the command line and over HTTP."""
        fields = ("kind", "plan", "trigger", "state", "since", "waits_for")
        return {name: getattr(self, name) for name in fields} | {"run": self.id}


class DaemonStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The daemon at the moment `beat`. `config_error` is why the configuration that was read last is not in use."""

    process: str
    program: str
    started: datetime
    beat: datetime
    ready: bool = False
    stopping: bool = False
    configured: datetime
    config_error: str | None = None
    next_runs: Sequence[NextRun] = ()
    activities: Sequence[Activity] = ()


class StatusSource(Protocol):
    """Where the status comes from, inside the daemon. Thread-safe."""

    def status(self) -> DaemonStatus:
        """The status at this moment."""
        ...


_STATUS: msgspec.json.Decoder[DaemonStatus] = msgspec.json.Decoder(DaemonStatus)


class StatusFile:
    """`daemon.json` in the state directory, written at every beat, removed by a daemon that ends."""

    def __init__(self, state: Path) -> None:
        self.path = state / "daemon.json"

    def write(self, status: DaemonStatus) -> None:
        """Replace what is there; SourceError if it can't be written. It need not survive a power cut: no fsync."""
        write_private(self.path, msgspec.json.encode(status), durable=False)

    def read(self) -> DaemonStatus | None:
        """What the daemon said last; None if it has never run or has ended. SourceError if the file can't be read."""
        data = read_private(self.path)
        try:
            return None if data is None else _STATUS.decode(data)
        except MALFORMED:  # of another version
            return None

    def remove(self) -> None:
        """No daemon runs any more."""
        self.path.unlink(missing_ok=True)


def unwell(status: DaemonStatus | None, now: datetime) -> str | None:
    """Why the daemon is not well; None if it is."""
    if status is None:
        return "no daemon runs with this state directory"
    if not alive(status.process):
        return "the daemon has died"
    silent = now - status.beat
    if silent > _DEAD_AFTER:
        return f"the daemon has not moved for {silent.total_seconds():.0f} s"
    return None
