"""Which subjects are not well, so that 'back to normal' is told once; also when the program was restarted meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from backupd.history import Run
from backupd.notify.events import EventName, judge, subject
from backupd.statefile import locked, read_private, write_private


def after(run: Run, problems: Mapping[str, EventName]) -> tuple[Mapping[str, EventName], EventName | None]:
    """The problems once that run is over, and the one that it ends. A run that merely warned ends a failure, too.

    What was skipped says nothing about its subject, nor does a part of it.
    """
    key = subject(run)
    if run.outcome == "skipped" or run.part:
        return problems, None
    if run.good:
        return {name: kind for name, kind in problems.items() if name != key}, problems.get(key)
    event = judge(run)
    return {**problems, key: "failure" if problems.get(key) == "failure" else event}, None


class Problems:
    """`problems.json` in the state directory. SourceError if it can't be written; an unreadable one counts as empty."""

    def __init__(self, state: Path) -> None:
        self._path = state / "problems.json"

    def note(self, run: Run) -> EventName | None:
        """Remember the end of a run; the problem that it ends, if any."""
        with locked(self._path):
            before = self._read()
            now, ended = after(run, before)
            if now != before:
                write_private(self._path, msgspec.json.encode(now))
        return ended

    def _read(self) -> Mapping[str, EventName]:
        try:
            data = read_private(self._path)
            return msgspec.json.decode(data, type=dict[str, EventName]) if data else {}
        except msgspec.DecodeError:
            return {}
