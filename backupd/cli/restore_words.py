"""What `backupd restore` says: its plan, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from backupd.cli import words
from backupd.cli.options import Session
from backupd.errors import PartialFailure, ServiceUnhealthy
from backupd.repository import Manifest
from backupd.restore.around import Around, questions
from backupd.restore.operation import RestoreResult
from backupd.restore.target import RestoreRequest, Step


def show_plan(session: Session, manifest: Manifest, store: str, steps: Sequence[Step], request: RestoreRequest) -> None:
    """What goes where."""
    output = session.output
    output.line(
        f"snapshot {manifest.short_id} of {words.moment(manifest.time)} (plan {manifest.plan}) from store {store}:"
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
    replaces = any(step.survey and not step.survey.empty for step in steps)
    if request.safety_snapshot and replaces:
        output.line("  a safety snapshot of what is there now comes first")
    if session.settings.engine == "mounted" and replaces:
        output.line("  the mounted engine knows no services: stop what uses this before, and start it afterwards")


def show_services(session: Session, around: Around, request: RestoreRequest) -> None:
    """Which containers will be stopped, in which order, and what speaks against it."""
    output = session.output
    if not request.stop:
        for volume, users in around.users.items():
            output.warn(f"{', '.join(user.name for user in users)} uses {volume} and will not be stopped")
        return
    if around.stopped:
        names = [service.name for service in around.stopped]
        output.line(f"  for the exchange these containers are stopped, in this order: {', '.join(names)}")
        output.line(
            f"  then they are started, in the opposite order, and have to be healthy within"
            f" {words.duration(timedelta(seconds=request.healthy_within_seconds))}"
            + (", or the old data come back" if request.rollback else "")
        )
    using = {user.id for found in around.users.values() for user in found}
    for service in around.stopped:
        if service.id not in using:
            output.line(f"  {service.name} does not use the data, but asks to be restarted with what it depends on")
        if service.state != "running":
            again = ", and will be again" if service.state == "paused" else ""
            output.line(f"  {service.name} is {service.state} now{again}")
        if service.orchestrator:
            output.warn(f"{service.name} is run by {service.orchestrator}")
    for question in questions(around):
        output.warn(question)


def described_services(around: Around) -> list[dict[str, Any]]:
    """The containers in the JSON document, in the order of their stops."""
    users = {user.id: user for found in around.users.values() for user in found}
    stopped = {service.id for service in around.stopped}
    strangers = {service.id for service in around.strangers}
    return [
        {
            "name": service.name,
            "project": service.project,
            "service": service.service,
            "state": service.state,
            "uses": [volume for volume, found in around.users.items() if service.id in {user.id for user in found}],
            "stop": service.id in stopped,
            "stranger": service.id in strangers,
            "vanishes": service.removed_when_stopped,
            "orchestrator": service.orchestrator,
        }
        for service in around.stopped or users.values()
    ]


def described(step: Step) -> dict[str, Any]:
    """A step in the JSON document."""
    return {
        "volume": step.archive.volume,
        "target": step.volume,
        "bytes": step.size,
        "exists": step.survey is not None,
        "empty": step.survey is None or step.survey.empty,
        "notes": step.notes,
    }


def report(session: Session, manifest: Manifest, result: RestoreResult, store: str, request: RestoreRequest) -> None:
    """What was done; PartialFailure or ServiceUnhealthy if that is not all that was asked for."""
    output = session.output
    output.document(
        {
            "snapshot": manifest.id,
            "restored": [{**described(step), "old_data": _kept(step, request)} for step in result.steps],
            "safety_snapshot": result.safety and result.safety.id,
            "warnings": result.warnings,
            "downtime_seconds": round(result.downtime_seconds, 3),
            "away_seconds": {name: round(seconds, 3) for name, seconds in result.away_seconds.items()},
            "unhealthy": result.unhealthy,
        }
    )
    for warning in result.warnings:
        output.warn(warning)
    for step in result.steps:
        what = f"{', '.join(step.selection.paths)} of " if step.selection else ""
        output.line(f"{step.volume} now holds {what}{step.archive.volume} as in snapshot {manifest.short_id}")
        if kept := _kept(step, request):
            output.line(f"  what it held before is in {kept}, inside the volume, until you remove it")
    if result.away_seconds:
        away = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in result.away_seconds.items())
        output.line(f"services were away for {result.downtime_seconds:.1f} s in all ({away})")
    if result.safety is not None:
        output.line(
            f"what was there before is safety snapshot {result.safety.short_id} in store {store}:"
            f" `backupd restore {result.safety.short_id}` goes back to it"
        )
    if result.unhealthy is not None:
        raise ServiceUnhealthy(f"{result.unhealthy}; the restored data stay in place (--no-rollback)")
    missing = [failure for failure in manifest.failures if not failure.optional]
    if missing and len(result.steps) == len(manifest.archives):
        raise PartialFailure(
            f"the snapshot does not hold {', '.join(failure.volume for failure in missing)}: that was not restored"
        )


def _kept(step: Step, request: RestoreRequest) -> str | None:
    """The directory of the volume that has the old data, if they were to stay and there were any."""
    replaced = step.survey is not None and not step.survey.empty
    return step.swap.old if request.keep_old and replaced else None
