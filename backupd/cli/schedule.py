"""`backupd schedule`."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import typer
from msgspec import Struct

from backupd import words
from backupd.agenda import Entry, agenda, called
from backupd.cli.options import Session, command
from backupd.daemon.known import KnownSince
from backupd.daemon.missed import missed_runs
from backupd.history import History
from backupd.jobs.catching_up import last_runs
from backupd.status import DaemonStatus, StatusFile, unwell
from backupd.wiring import SystemClock


class _Line(Struct, frozen=True):
    entry: Entry
    next: datetime
    missed: datetime | None


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, "schedule")
    def schedule(session: Session) -> None:
        """When what runs next, what was missed, what the daemon is at and what waits.

        Asks the stores when plans were backed up last.
        """
        settings = session.settings
        now = SystemClock().now()
        status = StatusFile(settings.state_dir).read()
        trouble = unwell(status, now)
        lines = _lines(session, None if trouble else status, now)
        queue = status.activities if status and not trouble else ()
        session.output.document(
            {
                "daemon": trouble or "running",
                "schedule": [_described(line) for line in lines],
                "queue": [one.described() for one in queue],
            },
        )
        session.output.table(
            ("RUN", "SCHEDULE", "ZONE", "NEXT", "HERE", "MISSED"),
            [
                (
                    line.entry.key,
                    line.entry.schedule,
                    line.entry.timezone,
                    _in_zone(line.next, line.entry.timezone),
                    words.moment(line.next),
                    _in_zone(line.missed, line.entry.timezone) if line.missed else "",
                )
                for line in lines
            ],
        )
        for one in queue:
            what = f"waits since {words.moment(one.since)}: {one.waits_for}"
            if one.state == "running":
                what = f"is under way since {words.moment(one.since)}{f', run {one.id[:8]}' if one.id else ''}"
            session.output.line(f"{called(one.kind, one.plan)} ({one.trigger}) {what}")
        if not lines:
            session.output.line("no plan has a schedule")
        elif trouble:
            session.output.warn(f"{trouble}: nothing of this happens until `backupd run` does it")
        if status is not None and status.config_error and not trouble:
            session.output.warn(f"the daemon goes on with an older configuration: {status.config_error}")


def _lines(session: Session, status: DaemonStatus | None, now: datetime) -> list[_Line]:
    entries = agenda(session.settings)
    plans = [entry.plan for entry in entries if entry.kind == "backup" and entry.plan is not None]
    known = KnownSince(session.settings.state_dir).look([entry.key for entry in entries], now)
    history = History(session.settings.state_dir)
    missed = missed_runs(entries, last_runs(session.site, plans), history, known, now)
    due = {(run.kind, run.plan, run.schedule): run.at for run in status.next_runs} if status else {}
    under_way = {(one.kind, one.plan) for one in status.activities} if status else set()
    when_missed = {
        entry.key: time
        for entry, time in missed
        if (entry.kind, entry.plan) not in under_way  # nor does what waits out its jitter
        and due.get((entry.kind, entry.plan, entry.schedule), entry.next(now)) >= entry.next(now)
    }
    return [
        _Line(
            entry,
            due.get((entry.kind, entry.plan, entry.schedule)) or entry.next(now),
            when_missed.get(entry.key),
        )
        for entry in entries
    ]


def _described(line: _Line) -> dict[str, object]:
    return {
        "kind": line.entry.kind,
        "plan": line.entry.plan,
        "schedule": line.entry.schedule,
        "timezone": line.entry.timezone,
        "next": line.next,
        "missed": line.missed,
        "catch_up": line.entry.catch_up,
    }


def _in_zone(moment: datetime, zone: str) -> str:
    return moment.astimezone(ZoneInfo(zone)).isoformat(" ", "seconds")
