"""`backupd drill`."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from backupd.cli import words
from backupd.cli.options import Session, command
from backupd.errors import UsageError
from backupd.jobs.drill import judge_drill, run_drill
from backupd.repository import DrillRecord, Finding, VolumeDrill

_MARKS = {"proven": "✓", "failed": "✗", "warning": "!", "skipped": "–"}
_STYLES = {"failed": "bold red", "warning": "yellow", "skipped": "dim"}
_OUTCOMES = {"proven": "proven", "files": "files only", "failed": "FAILED"}


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, "drill")
    def drill(
        session: Session,
        id_: Annotated[
            str | None,
            typer.Argument(metavar="ID", help="A snapshot (default: the newest of the plan)."),
        ] = None,
        plan: Annotated[
            str | None, typer.Option("--plan", metavar="P", help="The newest snapshot of this plan.")
        ] = None,
        volume: Annotated[
            list[str] | None, typer.Option("--volume", metavar="V", help="Only this volume; repeatable.")
        ] = None,
    ) -> None:
        """Restore a snapshot beside the stack, start copies of its services, and ask them.

        Nothing of the stack is touched, and nothing is left. Exit code 0: nothing is wrong with it; 1: something is;
        13: the data are damaged.
        """
        if id_ is not None and plan is not None:
            raise UsageError("give an ID or --plan, not both")
        wanted = tuple(volume or ())
        found = session.find(id_, wanted) if id_ else session.site.newest_of(session.plan_name(plan))
        with session.recorder().run("drill", found[1].plan) as draft:
            drilled = run_drill(session.site, found, draft, wanted)
            record = drilled.record
            session.output.document({"store": drilled.store, "drill": record, "kept": drilled.trouble is None})
            show_drill(session, record)
            judge_drill(record)


def show_drill(session: Session, record: DrillRecord) -> None:
    """What a drill found, for people."""
    output = session.output
    output.table(
        ("VOLUME", "OUTCOME", "RESTORE", "START", "BACK AFTER", "AGE OF DATA"),
        [_row(record, volume) for volume in record.volumes],
        right=("RESTORE", "START", "BACK AFTER", "AGE OF DATA"),
    )
    for volume in record.volumes:
        output.line()
        output.line(volume.volume, style="bold")
        for finding in volume.findings:
            output.line(_line(finding), style=_STYLES.get(finding.verdict, ""))
        for service in volume.services:
            for note in service.notes:
                output.line(f"    {service.name} was copied: {note}", style="dim")
    without = f" (without {', '.join(record.missing)})" if record.missing else ""
    output.line()
    # How long it took until it failed is not how long a restore takes.
    takes = "" if record.outcome == "failed" else f" a restore takes {_seconds(record.recovery_seconds)} (RTO),"
    output.line(
        f"drill {record.id}: {_OUTCOMES[record.outcome]}{without};{takes}"
        f" its data were {_seconds(record.age_seconds)} old (RPO)"
    )


def _row(record: DrillRecord, volume: VolumeDrill) -> tuple[str, ...]:
    return (
        volume.volume,
        _OUTCOMES[volume.outcome],
        _seconds(volume.restore_seconds),
        _seconds(volume.recovery_seconds - volume.restore_seconds) if volume.services else "–",
        _seconds(volume.recovery_seconds),
        _seconds((record.time - volume.moment).total_seconds()),
    )


def _line(finding: Finding) -> str:
    return f"  {_MARKS[finding.verdict]} {finding.probe} ({finding.subject}): {finding.text}"


def _seconds(seconds: float) -> str:
    return words.duration(timedelta(seconds=max(0.0, seconds)))


def proven_words(record: DrillRecord | None, archives: int) -> str:
    """What `list` says of a snapshot's last drill."""
    if record is None:
        return ""
    day = record.time.astimezone().date().isoformat()
    if record.outcome == "failed":
        return f"✗ {day}"
    parts = [day]
    if record.missing:
        parts.append(f"{len(record.volumes)} of {archives}")
    if record.outcome == "files":
        parts.append("files")
    return " ".join(parts)
