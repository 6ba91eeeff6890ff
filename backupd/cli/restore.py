"""`backupd restore`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from backupd.cli import words
from backupd.cli.backup import finish_interrupted
from backupd.cli.options import Session, command
from backupd.cli.snapshots import Id
from backupd.engine import MountedEngine
from backupd.errors import Interrupted, PartialFailure, UsageError
from backupd.model import VolumeSpec
from backupd.repository import Manifest, Repository, normalized
from backupd.restore import RestoreRequest, RestoreResult, Step, plan_restore, refuse_if_used, restore
from backupd.runtime import Runtime
from backupd.settings import LocalStoreSettings


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, "restore")
    def restore_(
        session: Session,
        id_: Id,
        volumes: Annotated[
            list[str] | None, typer.Argument(metavar="[VOLUME]...", help="Only these volumes of the snapshot.")
        ] = None,
        path: Annotated[
            list[str] | None,
            typer.Option("--path", metavar="P", help="Only this file or directory of the volume; repeatable."),
        ] = None,
        into: Annotated[
            str | None,
            typer.Option("--into", metavar="VOLUME", help="Into this volume (or directory) instead of the original."),
        ] = None,
        to_dir: Annotated[
            Path | None, typer.Option("--to-dir", metavar="DIR", help="Into a directory of this machine instead.")
        ] = None,
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, print the plan, stop.")] = False,
        yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
        force: Annotated[
            bool, typer.Option("--force", help="Write even while running containers use the volume.")
        ] = False,
        keep_old: Annotated[
            bool, typer.Option("--keep-old", help="Leave the old data in `.backupd-old-…` inside the volume.")
        ] = False,
        safety_snapshot: Annotated[
            bool,
            typer.Option("--safety-snapshot/--no-safety-snapshot", help="First take a snapshot of what is there now."),
        ] = True,
    ) -> None:
        """Bring a snapshot's data back.

        Everything is extracted and checked beside the old data, then exchanged by renames: a volume holds the old data
        or the new, never a mixture, whatever happens on the way.
        """
        if into and to_dir:
            raise UsageError("--into and --to-dir exclude each other")
        request = RestoreRequest(
            volumes=tuple(volumes or ()),
            paths=tuple(normalized(item) for item in path or ()),
            into=_spec(session, into, to_dir),
            force=force,
            safety_snapshot=safety_snapshot and to_dir is None,
            keep_old=keep_old,
        )
        repository, manifest = session.find(id_, volumes or ())
        runtime = session.runtime(MountedEngine() if to_dir else None)
        if not dry_run:
            finish_interrupted(session, runtime)
        if to_dir and len(volumes or manifest.archives) != 1:
            raise UsageError("--to-dir takes one volume", hint="name one of the snapshot's volumes")
        # A dry run shows the plan also where running containers would be in its way, and then says so.
        asked = replace(request, force=True) if dry_run else request
        steps = plan_restore(asked, manifest, repository, runtime, _configured(session))
        _refuse_to_harm(session, steps, to_dir)
        _show_plan(session, manifest, repository, steps, request)
        if dry_run:
            session.output.document({"snapshot": manifest.id, "plan": [_described(step) for step in steps]})
            session.output.line("dry run: nothing was changed")
            refuse_if_used(steps, request)
            return
        if not yes and any(step.survey is not None and not step.survey.empty for step in steps):
            _confirm(session)
        _report(session, manifest, _run(steps, request, repository, runtime), repository.store.name)


def _run(steps: Sequence[Step], request: RestoreRequest, repository: Repository, runtime: Runtime) -> RestoreResult:
    started = runtime.clock.now()
    result = restore(steps, request, repository, runtime)
    runtime.progress.note(f"done in {words.duration(runtime.clock.now() - started)}")
    return result


def _spec(session: Session, into: str | None, to_dir: Path | None) -> VolumeSpec | None:
    if to_dir is not None:
        return VolumeSpec("--to-dir", path=str(to_dir.absolute()))
    if into is None:
        return None
    if session.settings.engine == "mounted" or into.startswith("/"):
        return VolumeSpec("--into", path=str(Path(into).absolute()))
    return VolumeSpec("--into", volume=into)


def _refuse_to_harm(session: Session, steps: Sequence[Step], to_dir: Path | None) -> None:
    """UsageError where a restore would replace what nobody meant to be replaced."""
    if to_dir and any(step.survey is not None and not step.survey.empty for step in steps):
        raise UsageError(f"{to_dir} is not empty", hint="give a directory that is new or empty")
    kept = [store.path for store in session.settings.stores.values() if isinstance(store, LocalStoreSettings)]
    for path in (*map(Path, kept), Path(session.settings.state_dir)):
        for step in steps:
            place = Path(step.volume.source)
            if step.volume.kind != "volume" and (path.is_relative_to(place) or place.is_relative_to(path)):
                raise UsageError(f"{place} and {path}, which backupd itself needs, lie within each other")


def _configured(session: Session) -> dict[str, VolumeSpec]:
    return {name: session.settings.volume_spec(name) for name in session.settings.volumes}


def _show_plan(
    session: Session, manifest: Manifest, repository: Repository, steps: Sequence[Step], request: RestoreRequest
) -> None:
    output = session.output
    output.line(
        f"snapshot {manifest.short_id} of {words.moment(manifest.time)} (plan {manifest.plan})"
        f" from store {repository.store.name}:"
    )
    for step in steps:
        what = ", ".join(request.paths) if request.paths else "all of it"
        output.line(f"  {step.archive.volume} → {step.volume}: {what}, {words.size(step.size)}")
        if step.survey is None:
            output.line("    does not exist: it will be created")
        elif step.survey.empty:
            output.line("    is empty")
        elif request.paths:
            output.line("    what is at these paths now will be replaced, the rest stays")
        else:
            output.line("    what is in it now will be replaced")
        for note in step.notes:
            output.warn(note)
    if missing := [name for name in session.settings.volumes if manifest.archive(name) is None]:
        output.line(f"  this snapshot does not hold: {', '.join(missing)}")
    if request.safety_snapshot and any(step.survey and not step.survey.empty for step in steps):
        output.line("  a safety snapshot of what is there now comes first")


def _described(step: Step) -> dict[str, Any]:
    return {
        "volume": step.archive.volume,
        "target": step.volume,
        "bytes": step.size,
        "exists": step.survey is not None,
        "empty": step.survey is None or step.survey.empty,
        "notes": step.notes,
    }


def _confirm(session: Session) -> None:
    if not session.output.interactive:
        raise UsageError("nobody is there to confirm", hint="pass --yes to restore without asking")
    if not typer.confirm("Restore?", default=False, err=True):
        raise Interrupted("not restored, nothing was changed")


def _report(session: Session, manifest: Manifest, result: RestoreResult, store: str) -> None:
    output = session.output
    output.document(
        {
            "snapshot": manifest.id,
            "restored": [_described(step) for step in result.steps],
            "safety_snapshot": result.safety and result.safety.id,
            "warnings": result.warnings,
        }
    )
    for warning in result.warnings:
        output.warn(warning)
    for step in result.steps:
        what = f"{', '.join(step.selection.paths)} of " if step.selection else ""
        output.line(f"{step.volume} now holds {what}{step.archive.volume} as in snapshot {manifest.short_id}")
    if result.safety is not None:
        output.line(
            f"what was there before is safety snapshot {result.safety.short_id} in store {store}:"
            f" `backupd restore {result.safety.short_id}` goes back to it"
        )
    missing = [failure for failure in manifest.failures if not failure.optional]
    if missing and len(result.steps) == len(manifest.archives):
        raise PartialFailure(
            f"the snapshot does not hold {', '.join(failure.volume for failure in missing)}: that was not restored"
        )
