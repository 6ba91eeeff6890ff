"""What should have run while no daemon was there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from backupd.agenda import Entry
from backupd.history import History, Outcome

LastRuns = Mapping[str, datetime | None]


def missed_runs(
    entries: Sequence[Entry], snapshots: LastRuns, history: History, known_since: Mapping[str, datetime], now: datetime
) -> list[tuple[Entry, datetime]]:
    """The entries that missed their last time, and when that was. SourceError if the history can't be read.

    When a plan was backed up last, its newest snapshot says; the history, if the stores can't be asked. Of the other
    kinds it is the history alone that knows.
    """
    found = []
    for entry in entries:
        last = _last(entry, snapshots, history)
        if (due := entry.missed(last, known_since.get(entry.key, now), now)) is not None:
            found.append((entry, due))
    return found


def _last(entry: Entry, snapshots: LastRuns, history: History) -> datetime | None:
    if entry.kind == "backup" and entry.plan is not None and entry.plan in snapshots:
        return snapshots[entry.plan]
    ended: list[Outcome] = ["done", "partial"]
    if entry.kind != "backup":
        ended.append("failed")  # what was found out is no reason to look again at once
    run = history.last(entry.kind, entry.plan, ended)
    return run.started if run else None
