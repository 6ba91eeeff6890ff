"""What is worth telling: the end of a run, judged, or an alert."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal, get_args

from msgspec import Struct

from backupd import words
from backupd.history import Run, RunKind

EventName = Literal["success", "warning", "failure", "recovery", "alert"]
EVENTS: tuple[EventName, ...] = get_args(EventName)

_MOST_NOTES = 20
_NOUNS: dict[RunKind, str] = {
    "backup": "backup", "restore": "restore", "verify": "check", "drill": "drill", "prune": "prune",
    "recover": "recovery after a crash",
}  # fmt: skip
_VERBS = {
    "done": "is done", "partial": "is done in part", "failed": "FAILED", "interrupted": "was interrupted",
    "skipped": "was skipped", "running": "goes on",
}  # fmt: skip


class Event(Struct, frozen=True):
    """`summary` is one line, `details` the lines below it. `ended` is what a recovery is the end of."""

    name: EventName
    summary: str
    details: tuple[str, ...]
    plan: str | None = None
    run: Run | None = None
    ended: EventName | None = None


def judge(run: Run) -> EventName:
    """What the end of a run is, taken by itself. A run in part, one that warned and one left out are warnings."""
    if run.outcome in {"failed", "interrupted"}:
        return "failure"
    return "warning" if run.outcome in {"partial", "skipped"} or run.warnings else "success"


def subject(run: Run) -> str:
    """What is well again once such a run is: `backup/nightly`."""
    return f"{run.kind}/{run.plan or ''}"


def of_run(run: Run, ended: EventName | None = None) -> Event:
    """The event that the end of a run is; `ended`: what it puts an end to, by being done."""
    name: EventName = "recovery" if ended else judge(run)
    what = f"{_NOUNS[run.kind]} {run.plan}" if run.plan else _NOUNS[run.kind]
    what += f" ({', '.join(sorted(run.volumes)) or 'a part of it'})" if run.part else ""
    if ended:
        summary = f"{what} is back to normal"
    else:
        summary = f"{what} {_VERBS[run.outcome]}{', with warnings' if run.warnings and run.good else ''}"
    return Event(name, summary, tuple(_details(run)), run.plan, run, ended)


def _details(run: Run) -> list[str]:
    lines = [f"error: {run.error}"] if run.error else []
    if run.snapshot:
        lines.append(f"snapshot {run.snapshot[:8]}" + (f" in {', '.join(run.stores)}" if run.stores else ""))
    took = f", took {words.duration(timedelta(seconds=run.seconds))}" if run.seconds else ""
    lines.append(f"began {words.moment(run.started)}{took} ({run.trigger})")
    if run.volumes:
        lines.append(
            f"data {words.size(run.plain_bytes)}, new {words.size(run.new_bytes)},"
            f" stored {words.size(run.stored_bytes)}, {words.count(run.files, 'file')}"
        )
    if run.warnings:
        lines.append(words.count(run.warnings, "warning"))
    if run.downtime:
        away = (f"{name} {words.duration(timedelta(seconds=span))}" for name, span in sorted(run.downtime.items()))
        lines.append(f"services away: {', '.join(away)}")
    lines += [f"note: {note}" for note in run.notes[:_MOST_NOTES]]
    if len(run.notes) > _MOST_NOTES:
        lines.append(f"… and {words.count(len(run.notes) - _MOST_NOTES, 'more note')}")
    lines.append(f"run {run.id}")
    return lines
