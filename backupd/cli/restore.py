"""`backupd restore`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from msgspec.structs import replace

from backupd.cli import words
from backupd.cli.options import Session, command
from backupd.cli.restore_words import described, described_services, report, show_plan, show_services
from backupd.cli.snapshots import Id
from backupd.engine import MountedEngine
from backupd.errors import Interrupted, UsageError
from backupd.jobs.recover import finish_interrupted
from backupd.model import VolumeSpec
from backupd.repository import Repository, normalized
from backupd.restore.around import Around, look_around, refuse
from backupd.restore.operation import RestoreResult, restore
from backupd.restore.target import RestoreRequest, Step, plan_restore
from backupd.runtime import Runtime
from backupd.settings import LocalStoreSettings
from backupd.settings.types import parse_duration


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
        no_stop: Annotated[
            bool, typer.Option("--no-stop", help="Stop no container; refuse if a running one uses the volume.")
        ] = False,
        force: Annotated[
            bool,
            typer.Option(
                "--force",
                help="Stop also containers of other projects and those that vanish when stopped; with --no-stop, write"
                " while containers run.",
            ),
        ] = False,
        timeout: Annotated[
            str | None,
            typer.Option(
                "--timeout",
                metavar="DURATION",
                help="How long a service may take to become healthy (default: restore.healthy_within, 5m).",
            ),
        ] = None,
        rollback: Annotated[
            bool,
            typer.Option(
                "--rollback/--no-rollback", help="Bring the old data back if a service does not become healthy."
            ),
        ] = True,
        keep_old: Annotated[
            bool, typer.Option("--keep-old", help="Leave the old data in `.backupd-old-…` inside the volume.")
        ] = False,
        safety_snapshot: Annotated[
            bool,
            typer.Option("--safety-snapshot/--no-safety-snapshot", help="First take a snapshot of what is there now."),
        ] = True,
    ) -> None:
        """Bring a snapshot's data back.

        Everything is extracted and checked beside the old data while services run. Then the containers that use the
        volumes are stopped, the data exchanged by renames, the containers started and waited for until they are
        healthy. A volume holds the old data or the new, never a mixture, whatever happens on the way.
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
            stop=not no_stop,
            rollback=rollback,
            healthy_within_seconds=_within(session, timeout),
            project=session.settings.project,
        )
        repository, manifest = session.find(id_, volumes or ())
        manifest = repository.opened(manifest)
        runtime = session.runtime(MountedEngine() if to_dir else None)
        if not dry_run:
            finish_interrupted(session.site, runtime)
        if to_dir and len(volumes or manifest.archives) != 1:
            raise UsageError("--to-dir takes one volume", hint="name one of the snapshot's volumes")
        steps = plan_restore(request, manifest, repository, runtime, _configured(session))
        _refuse_to_harm(session, steps, to_dir)
        around = look_around(steps, request, runtime.engine.services)
        show_plan(session, manifest, repository.store.name, steps, request)
        show_services(session, around, request)
        if dry_run:
            session.output.document(
                {
                    "snapshot": manifest.id,
                    "plan": [described(step) for step in steps],
                    "services": described_services(around),
                }
            )
            session.output.line("dry run: nothing was changed")
            refuse(around, request)
            return
        if yes:
            refuse(around, request)
        else:
            request = _agreed(session, steps, around, request)
        with session.recorder().run("restore", manifest.plan) as draft:
            draft.set(snapshot=manifest.id, stores=[repository.store.name])
            result = _run(steps, request, repository, runtime)
            draft.set(downtime=dict(result.away_seconds), warnings=len(result.warnings))
            if result.safety is not None:
                draft.note(f"what was there before is in safety snapshot {result.safety.short_id}")
            report(session, manifest, result, repository.store.name, request)


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
    known = session.settings.volumes.get(into)
    if known is not None and known.path is not None:
        return VolumeSpec("--into", path=session.settings.volume_spec(into).path)
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


def _agreed(session: Session, steps: Sequence[Step], around: Around, request: RestoreRequest) -> RestoreRequest:
    """The request as a person agreed to it. `Interrupted` if they did not, UsageError if nobody can be asked."""
    if around.questionable and not request.force and session.output.interactive:
        refuse(around, replace(request, force=True))
        if not typer.confirm("Stop these containers as well?", default=False, err=True):
            raise Interrupted("not restored, nothing was changed")
        request = replace(request, force=True)
    refuse(around, request)
    if around.stopped or any(step.survey is not None and not step.survey.empty for step in steps):
        if not session.output.interactive:
            raise UsageError("nobody is there to confirm", hint="pass --yes to restore without asking")
        if not typer.confirm("Restore?", default=False, err=True):
            raise Interrupted("not restored, nothing was changed")
    return request


def _within(session: Session, timeout: str | None) -> float:
    if timeout is None:
        return session.settings.restore.healthy_within.total_seconds()
    try:
        return parse_duration(timeout).total_seconds()
    except ValueError as exc:
        raise UsageError(f"--timeout: {exc}") from exc
