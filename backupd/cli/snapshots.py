"""`backupd list` and `backupd show`."""

from __future__ import annotations

from typing import Annotated

import typer

from backupd.cli import words
from backupd.cli.options import Session, command
from backupd.errors import UsageError
from backupd.repository import Archive, Manifest

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
        output.document(
            {
                "store": repository.store.name,
                "snapshots": chosen,
                "damaged": [str(problem) for problem in damaged],
            }
        )
        output.table(
            ("ID", "TIME", "PLAN", "VOLUMES", "DATA", "ADDED", "STATE"),
            [_row(manifest) for manifest in chosen],
            right=("DATA", "ADDED"),
        )
        output.line(f"{words.count(len(chosen), 'snapshot')} in store {repository.store.name}")
        if damaged:
            for problem in damaged[:-1]:
                output.warn(str(problem))
            raise type(damaged[-1])(str(damaged[-1]), hint="the snapshots above are not affected")


def _register_show(app: typer.Typer) -> None:
    """Add `show`."""

    @command(app, "show")
    def show(session: Session, id_: Id) -> None:
        """What a snapshot holds, and where it came from."""
        repository, manifest = session.find(id_)
        output = session.output
        output.document(manifest)
        for key, value in _facts(repository.store.name, manifest):
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


def _refuse_unknown(noun: str, name: str | None, known: set[str]) -> None:
    """A typo must not look like an absence of backups."""
    if name is not None and name not in known:
        raise UsageError(f"there is no {noun} {name!r}", hint=f"there are: {', '.join(sorted(known))}")


def _row(manifest: Manifest) -> tuple[str, ...]:
    return (
        manifest.short_id,
        words.moment(manifest.time),
        manifest.plan,
        ", ".join(archive.volume for archive in manifest.archives),
        words.size(sum(archive.plain_size for archive in manifest.archives)),
        words.size(manifest.new_stored_size),
        _state(manifest),
    )


def _state(manifest: Manifest) -> str:
    if not manifest.complete:
        return "partial: no " + ", ".join(failure.volume for failure in manifest.failures if not failure.optional)
    warnings = sum(archive.warning_count for archive in manifest.archives)
    return words.count(warnings, "warning") if warnings else "complete"


def _facts(store: str, manifest: Manifest) -> list[tuple[str, str]]:
    return [
        ("snapshot", manifest.id),
        ("taken", f"{words.moment(manifest.time)}, in {words.duration(manifest.finished - manifest.time)}"),
        ("plan", f"{manifest.plan} ({manifest.reason})"),
        ("by", f"{manifest.program} on {manifest.host}"),
        ("store", store),
        ("state", _state(manifest)),
    ]


def _archive_facts(archive: Archive) -> list[tuple[str, str]]:
    kind = "full" if archive.full else f"incremental, on snapshot {(archive.parent or '')[:8]}"
    return [
        ("from", str(archive.source)),
        ("kind", kind),
        ("data", f"{words.size(archive.plain_size)} in {words.count(archive.members, 'file')}"),
        ("new", f"{words.size(archive.new_size)}, stored as {words.size(archive.stored_size)}"),
        ("read by", f"{archive.tool}{_LOSSES[archive.tool.flavour]}" if archive.tool else "import"),
        ("consistency", archive.consistency),
        ("time", words.duration(archive.finished - archive.started)),
        ("needs", ", ".join(ref.key for ref in archive.needs) or "nothing (an empty stream)"),
    ]
