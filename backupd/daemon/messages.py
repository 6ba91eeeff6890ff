"""What a daemon and the process that carries out one run tell each other: a task, and what came of it."""

from __future__ import annotations

import pickle
from datetime import datetime
from pathlib import Path
from typing import IO, Literal

import msgspec
from msgspec import Struct

from backupd.errors import BackupdError, Interrupted, PartialFailure, RunSkipped
from backupd.history import Run
from backupd.malformed import MALFORMED
from backupd.settings import Settings
from backupd.settings.schedules import Overlap


class Task(Struct, frozen=True):
    """What is to be done. `prepare`: recover, and tell when plans ran last. `level` goes before the settings' own."""

    what: Literal["run", "prepare"]
    run: Run
    settings: Settings
    overlap: Overlap = "wait"
    identity: Path | None = None
    level: str | None = None


class Reply(Struct, frozen=True, kw_only=True):
    """The run with its figures, what it ended with, and for `prepare` when each plan's newest snapshot was taken."""

    run: Run
    error: str | None = None
    hint: str | None = None
    exit_code: int = 0
    skipped: bool = False
    last: dict[str, datetime | None] = {}


_REPLY: msgspec.json.Decoder[Reply] = msgspec.json.Decoder(Reply)


def send(task: Task, stream: IO[bytes]) -> None:
    """Hand a task to a process that reads the other end. It holds secrets: pipes of our own only."""
    pickle.dump(task, stream)
    stream.flush()


def receive(stream: IO[bytes]) -> Task:
    """The task that our parent sent."""
    task = pickle.load(stream)  # noqa: S301  (a pipe that only our parent writes to)
    assert isinstance(task, Task)
    return task


def decode(data: bytes) -> Reply | None:
    """The reply, None if the process died before it was complete."""
    try:
        return _REPLY.decode(data)
    except MALFORMED:
        return None


def failure(reply: Reply) -> BackupdError | None:
    """The error that the run ended with, of a kind that leads to the same outcome and exit code."""
    if reply.error is None:
        return None
    kind = RunSkipped if reply.skipped else {130: Interrupted, 3: PartialFailure}.get(reply.exit_code, BackupdError)
    error = kind(reply.error, hint=reply.hint)
    error.exit_code = reply.exit_code
    return error
