"""`backupd history`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, get_args

import msgspec
import typer

from backupd import words
from backupd.agenda import called
from backupd.cli.options import Session, command
from backupd.errors import UsageError
from backupd.history import History, Run, RunKind

_STYLES = {"failed": "bold red", "interrupted": "red", "partial": "yellow", "skipped": "dim", "running": "bold"}
_LONGEST = 100


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, "history")
    def history(
        session: Session,
        id_: Annotated[str | None, typer.Argument(metavar="[ID]", help="All that is known of one run.")] = None,
        plan: Annotated[str | None, typer.Option("--plan", metavar="P", help="Only runs of this plan.")] = None,
        kind: Annotated[
            str | None, typer.Option("--kind", metavar="K", help=f"Only one kind: {', '.join(get_args(RunKind))}.")
        ] = None,
        limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="So many of the newest.")] = 30,
    ) -> None:
        """What has been done, newest first: by schedules and by hand, on this machine."""
        record = History(session.settings.state_dir)
        if id_ is not None:
            _one(session, record, id_)
            return
        runs = record.runs(kind=_kind(kind), plan=plan, limit=limit)
        session.output.document({"runs": [_document(run) for run in runs]})
        session.output.table(
            ("ID", "BEGAN", "KIND", "PLAN", "TRIGGER", "OUTCOME", "TIME", "DATA", "NEW", "WARNINGS", ""),
            [_row(run) for run in runs],
            right=("TIME", "DATA", "NEW", "WARNINGS"),
        )
        if not runs:
            session.output.line("no such run is known" if kind or plan else "nothing has run yet")


def _kind(kind: str | None) -> RunKind | None:
    found: RunKind | None = next((known for known in get_args(RunKind) if known == kind), None)
    if kind is not None and found is None:
        raise UsageError(f"there is no kind of run called {kind!r}", hint=f"there are: {', '.join(get_args(RunKind))}")
    return found


def _one(session: Session, record: History, prefix: str) -> None:
    found = record.find(prefix.lower())
    if len(found) != 1:
        how = f"{len(found)} runs begin" if found else "no run begins"
        raise UsageError(f"{how} with {prefix!r}", hint="`backupd history` shows them")
    run = found[0]
    session.output.document({"run": _document(run)})
    for name, value in _facts(run):
        session.output.line(f"{name:<9} {value}")
    session.output.table(
        ("VOLUME", "KIND", "DATA", "NEW", "STORED", "FILES", "WARNINGS", "TIME"),
        [
            (
                name,
                "full" if volume.full else "incremental",
                *(words.size(size) for size in (volume.plain_bytes, volume.new_bytes, volume.stored_bytes)),
                f"{volume.files:,}",
                str(volume.warnings),
                _span(volume.seconds),
            )
            for name, volume in run.volumes.items()
        ],
        right=("DATA", "NEW", "STORED", "FILES", "WARNINGS", "TIME"),
    ) if run.volumes else None
    for note in run.notes:
        session.output.line(f"  {note}")


def _facts(run: Run) -> Sequence[tuple[str, str]]:
    facts = [
        ("run", run.id),
        ("kind", f"{called(run.kind, run.plan)}{', a part of it' if run.part else ''} ({run.trigger})"),
        ("began", words.moment(run.started)),
        ("outcome", f"{run.outcome}{f' after {_span(run.seconds)}' if run.seconds is not None else ''}"),
        ("error", run.error or ""),
        ("snapshot", run.snapshot or ""),
        ("stores", ", ".join(run.stores)),
        ("stood", ", ".join(f"{name} for {seconds:.1f} s" for name, seconds in run.downtime.items())),
    ]
    return [(name, value) for name, value in facts if value]


def _row(run: Run) -> tuple[str, ...]:
    return (
        run.id[:8],
        words.moment(run.started),
        run.kind,
        f"{run.plan or ''}{' (part)' if run.part else ''}",
        run.trigger,
        run.outcome,
        _span(run.seconds),
        words.size(run.plain_bytes) if run.volumes else "",
        words.size(run.new_bytes) if run.volumes else "",
        str(run.warnings or ""),
        _short(run.error or next(iter(run.notes), "")),
    )


def _document(run: Run) -> dict[str, object]:
    sums = {"seconds": run.seconds, "plain_bytes": run.plain_bytes, "new_bytes": run.new_bytes}
    more = {"stored_bytes": run.stored_bytes, "files": run.files}
    tree: dict[str, object] = msgspec.to_builtins(run)
    return tree | sums | more


def _span(seconds: float | None) -> str:
    return "" if seconds is None else words.duration(timedelta(seconds=max(0.0, seconds)))


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
