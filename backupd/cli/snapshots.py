"""`backupd list` and `backupd show`."""

from __future__ import annotations

from typing import Annotated

import typer

from backupd.cli import words
from backupd.cli.drill import proven_words, show_drill
from backupd.cli.options import Session, command
from backupd.cli.output import described
from backupd.cli.standing import standing_facts, standing_words
from backupd.errors import IntegrityError, UsageError
from backupd.repository import (
    HIDDEN,
    Archive,
    DrillRecord,
    Manifest,
    RecordDoubted,
    Repository,
    Standing,
    drills_of,
    last_drills,
    standing_of,
    standings,
)

_LOSSES = {"gnu": "", "busybox": " (which keeps no extended attributes, ACLs, holes and fractions of seconds)"}

Id = Annotated[str, typer.Argument(metavar="ID", help="A snapshot: its id, the beginning of it, or `latest`.")]
VolumeName = Annotated[str, typer.Argument(metavar="VOLUME", help="A volume of the snapshot.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    _register_list(app)
    _register_show(app)


def _register_list(app: typer.Typer) -> None:
    """Add `list`."""

    @command(app, "list")
    def list_(
        session: Session,
        plan: Annotated[str | None, typer.Option("--plan", metavar="P", help="Only snapshots of this plan.")] = None,
        volume: Annotated[
            str | None, typer.Option("--volume", metavar="V", help="Only snapshots that hold this volume.")
        ] = None,
    ) -> None:
        """Snapshots, newest first."""
        repository = session.repository()
        manifests, damaged = repository.snapshots()
        _refuse_unknown("plan", plan, {*session.settings.plans, *(manifest.plan for manifest in manifests)})
        held = (archive.volume for manifest in manifests for archive in manifest.archives)
        _refuse_unknown("volume", volume, {*session.settings.volumes, *held})
        chosen = [
            manifest
            for manifest in manifests
            if plan in (None, manifest.plan) and (volume is None or manifest.archive(volume))
        ]
        output = session.output
        drilled = last_drills(repository, session.settings.state_dir)
        checked = standings(repository)
        for one in checked.problems:
            if isinstance(one, RecordDoubted):
                output.warn(str(one))
            else:
                damaged.append(one)
        output.document(
            {
                "store": repository.store.name,
                "snapshots": [described(manifest) for manifest in chosen],
                "drills": {m.id: _drill_facts(drilled.records[m.id]) for m in chosen if m.id in drilled.records},
                "checks": {m.id: standing_facts(checked.get(m.id)) for m in chosen},
                "damaged": [str(problem) for problem in damaged],
            }
        )
        output.table(
            ("ID", "TIME", "PLAN", "VOLUMES", "DATA", "ADDED", "STATE", "CHECKED", "PROVEN"),
            [
                (
                    *_row(manifest),
                    standing_words(checked.get(manifest.id)),
                    proven_words(drilled.records.get(manifest.id), len(manifest.archives)),
                )
                for manifest in chosen
            ],
            right=("DATA", "ADDED"),
        )
        output.line(f"{words.count(len(chosen), 'snapshot')} in store {repository.store.name}")
        if damaged:
            for problem in damaged[:-1]:
                output.warn(str(problem))
            further = f"; {damaged[-1].hint}" if damaged[-1].hint else ""
            raise type(damaged[-1])(str(damaged[-1]), hint=f"the snapshots above are not affected{further}")


def _register_show(app: typer.Typer) -> None:
    """Add `show`."""

    @command(app, "show")
    def show(session: Session, id_: Id) -> None:
        """What a snapshot holds, where it came from, and who can read it."""
        repository, manifest = session.find(id_)
        if repository.security.has_identity:
            manifest = repository.opened(manifest)
        output = session.output
        drilled = _drills(session, repository, manifest)
        standing = standing_of(repository, manifest.id)
        output.document({**described(manifest), "drills": drilled, "check": standing_facts(standing)})
        for key, value in _facts(repository.store.name, manifest, standing):
            output.line(f"{key:<10}{value}")
        for archive in manifest.archives:
            output.line()
            output.line(archive.volume, style="bold")
            for key, value in _archive_facts(archive):
                output.line(f"  {key:<13}{value}")
            for warning in archive.warnings:
                output.line(f"  warning      {warning}")
            if archive.warning_count > len(archive.warnings):
                output.line(f"  warning      … {words.count(archive.warning_count, 'warning')} in all")
        for failure in manifest.failures:
            output.line()
            output.line(f"{failure.volume}: {'left out' if failure.optional else 'FAILED'}: {failure.error}")
        if drilled:
            output.line()
            output.line(f"last drill, {words.moment(drilled[0].time)}", style="bold")
            show_drill(session, drilled[0])


def _drills(session: Session, repository: Repository, manifest: Manifest) -> list[DrillRecord]:
    """A record that can't be read says nothing of the snapshot, which is shown all the same."""
    try:
        return drills_of(repository, manifest.id, session.settings.state_dir)
    except IntegrityError as exc:
        session.output.warn(str(exc))
        return []


def _drill_facts(record: DrillRecord) -> dict[str, object]:
    return {"id": record.id, "time": record.time, "outcome": record.outcome, "good": record.good}


def _refuse_unknown(noun: str, name: str | None, known: set[str]) -> None:
    """A typo must not look like an absence of backups."""
    if name is not None and name not in known:
        raise UsageError(f"there is no {noun} {name!r}", hint=f"there are: {', '.join(sorted(known))}")


def _row(manifest: Manifest) -> tuple[str, ...]:
    return (
        manifest.short_id,
        words.moment(manifest.time),
        f"{manifest.plan}{' (part)' if manifest.part else ''}",
        ", ".join(archive.volume for archive in manifest.archives),
        words.size(sum(archive.plain_size for archive in manifest.archives)),
        words.size(manifest.new_stored_size),
        _state(manifest),
    )


def _state(manifest: Manifest) -> str:
    return f"{_outcome(manifest)}{', encrypted' if manifest.encryption else ''}"


def _outcome(manifest: Manifest) -> str:
    if not manifest.complete:
        return "partial: no " + ", ".join(failure.volume for failure in manifest.failures if not failure.optional)
    if manifest.all_trouble:
        return "complete, with trouble"
    warnings = sum(archive.warning_count for archive in manifest.archives)
    return words.count(warnings, "warning") if warnings else "complete"


def _facts(store: str, manifest: Manifest, standing: Standing) -> list[tuple[str, str]]:
    moment = [("moment", words.moment(manifest.moment))] if manifest.moment else []
    return [
        ("snapshot", manifest.id),
        ("taken", f"{words.moment(manifest.time)}, in {words.duration(manifest.finished - manifest.time)}"),
        ("plan", f"{manifest.plan}{', a part of it' if manifest.part else ''} ({manifest.reason})"),
        ("by", f"{manifest.program} on {manifest.host}"),
        ("store", store),
        ("state", _state(manifest)),
        ("checked", f"{standing_words(standing)}{f': {standing.problem}' if standing.problem else ''}"),
        *moment,
        *(("trouble", text) for text in manifest.trouble),
        *(("readers", key) for key in (manifest.encryption.recipients if manifest.encryption else ["everybody"])),
    ]


def _tool(archive: Archive) -> str:
    if archive.tool is None:
        return HIDDEN if archive.consistency == HIDDEN else "import"
    return f"{archive.tool}{_LOSSES[archive.tool.flavour]}"


def _archive_facts(archive: Archive) -> list[tuple[str, str]]:
    kind = "full"
    if not archive.full:
        kind = f"incremental, on snapshot {archive.parent[:8]}" if archive.parent else "in two passes"
    stood = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in archive.downtime.items())
    return [
        ("from", str(archive.source)),
        ("kind", kind),
        ("data", f"{words.size(archive.plain_size)} in {words.count(archive.members, 'file')}"),
        ("new", f"{words.size(archive.new_size)}, stored as {words.size(archive.stored_size)}"),
        ("read by", _tool(archive)),
        ("consistency", archive.consistency),
        *([("moment", words.moment(archive.moment))] if archive.moment else []),
        *([("stood", stood)] if stood else []),
        *(("trouble", text) for text in archive.trouble),
        ("time", words.duration(archive.finished - archive.started)),
        ("needs", ", ".join(ref.key for ref in archive.needs) or "nothing (an empty stream)"),
    ]
