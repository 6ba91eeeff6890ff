"""`backupd drill`."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from backupd import drill as drills
from backupd.cli import words
from backupd.cli.backup import finish_interrupted
from backupd.cli.options import Session, command
from backupd.errors import BackupdError, DrillFailed, IntegrityError, SnapshotNotFound, UsageError
from backupd.model import VolumeSpec
from backupd.repository import DrillRecord, Finding, Manifest, Repository, VolumeDrill, keep_drill
from backupd.settings import Settings

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
        runtime = session.runtime()
        finish_interrupted(session, runtime)
        wanted = tuple(volume or ())
        repository, manifest = session.find(id_, wanted) if id_ else newest_of(session, session.plan_name(plan))
        manifest = repository.opened(manifest)
        request = drills.DrillRequest(wanted, lambda name: _spec(session.settings, name), _options(session.settings))
        session.output.progress.note(f"drill of snapshot {manifest.short_id} of {words.moment(manifest.time)}")
        record = drills.drill(request, manifest, repository, runtime)
        trouble = _keep(session, repository, record)
        session.output.document({"store": repository.store.name, "drill": record, "kept": trouble is None})
        show_drill(session, record)
        if trouble is not None:
            session.output.warn(f"the drill's record is not in store {repository.store.name}: {trouble}")
        _judge(record)


def _keep(session: Session, repository: Repository, record: DrillRecord) -> str | None:
    """Why the record is not with the snapshot, None if it is. What was found is shown in any case."""
    try:
        return keep_drill(repository, record, session.settings.state_dir)
    except BackupdError as exc:
        return str(exc)


def newest_of(session: Session, plan: str) -> tuple[Repository, Manifest]:
    """The newest snapshot of a plan, in whatever store it is."""
    if plan not in session.settings.plans:
        session.settings.plan(plan)  # says what there is
    found = [
        (repository, manifest)
        for repository in session.repositories()
        for manifest in repository.snapshots()[0]
        if manifest.plan == plan and manifest.reason == "backup"
    ]
    if not found:
        raise SnapshotNotFound(f"plan {plan} has no snapshot yet", hint="`backupd backup` takes one")
    return max(found, key=lambda pair: pair[1].time)


def _spec(settings: Settings, name: str) -> VolumeSpec:
    return settings.volume_spec(name) if name in settings.volumes else VolumeSpec(name)


def _options(settings: Settings) -> drills.OptionsOf:
    def options(name: str) -> drills.DrillOptions:
        return settings.volumes[name].drill.options() if name in settings.volumes else drills.DrillOptions()

    return options


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
    output.line(
        f"drill {record.id}: {_OUTCOMES[record.outcome]}{without};"
        f" a restore takes {_seconds(record.recovery_seconds)} (RTO),"
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


def _judge(record: DrillRecord) -> None:
    """Raise what the record amounts to."""
    if record.outcome != "failed":
        return
    failures = record.failures
    damaged = [pair for pair in failures if pair[1].damage]
    volume, finding = (damaged or failures)[0]
    more = f" (and {words.count(len(failures) - 1, 'more finding')})" if len(failures) > 1 else ""
    message = f"the drill of snapshot {record.snapshot[:8]} failed: {volume}: {finding.text}{more}"
    raise IntegrityError(message) if damaged else DrillFailed(message)


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
