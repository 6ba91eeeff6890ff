"""Restore: a snapshot's archives back into volumes, staged and swapped, with the services around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from msgspec import Struct, field

from backupd.backup import take_snapshot
from backupd.errors import BackupdError, ServiceUnhealthy, SourceError, VolumeFull
from backupd.lock import volume_lock
from backupd.model import MIB, Plan, VolumeSpec
from backupd.ports import TarInput
from backupd.repository import END_OF_TAR, Manifest, Repository, read_ranges
from backupd.restore.around import look_around, refuse
from backupd.restore.change import Change
from backupd.restore.standstill import Standstill
from backupd.restore.target import RestoreRequest, Step, looked_at_again
from backupd.runtime import Runtime

SAFETY_PLAN = "safety"


class RestoreResult(Struct, frozen=True):
    """What was restored, and the safety snapshot that was taken first, if there was anything to save.

    `away_seconds` has the services that were stopped, by container, from their stop until they were well again;
    `downtime_seconds` is from the first stop to the last of them. `unhealthy` says which service is not well on the
    new data, which were to be kept all the same.
    """

    steps: tuple[Step, ...]
    safety: Manifest | None
    warnings: tuple[str, ...]
    downtime_seconds: float = 0.0
    away_seconds: Mapping[str, float] = field(default_factory=dict)
    unhealthy: str | None = None


def restore(
    steps: Sequence[Step],
    request: RestoreRequest,
    repository: Repository,
    runtime: Runtime,
) -> RestoreResult:
    """Carry out a planned restore: all volumes are swapped, or none is.

    Every byte is extracted and checked beside the old data while services run. Then those that use the volumes are
    stopped, the volumes swapped, and the services started and waited for. When anything fails, what was swapped is
    swapped back, what was staged is removed, and services run again. After a kill `recover` does that from the
    journal, or goes on with all volumes if all of them had been staged and the services been stopped.
    """
    services = runtime.engine.services
    with ExitStack() as stack:
        for step in steps:
            stack.enter_context(volume_lock(runtime.locks, step.volume))
        steps = looked_at_again(steps)
        refuse(look_around(steps, request, services), request)
        safety = _safety_snapshot(steps, request, repository, runtime)
        change = Change(steps, request, runtime)
        warnings: list[str] = []
        try:
            for step in steps:
                if step.survey is None:
                    step.swap.engine.create(step.volume)
                warnings += stage(step, repository, runtime)
            around = look_around(steps, request, services)
            refuse(around, request)
            still = stack.enter_context(Standstill(runtime, around, request.healthy_within_seconds))
            change.swap(still)
            if request.rollback:
                still.start(give_up=True)
        except BaseException as exc:
            change.take_back(exc)
            if isinstance(exc, VolumeFull):
                raise VolumeFull(f"{exc}; nothing was changed", hint=exc.hint) from exc
            raise
        unhealthy = None if request.rollback else _started(still)
        change.finish()
    return RestoreResult(tuple(steps), safety, tuple(warnings), still.downtime_seconds, still.away_seconds, unhealthy)


def _started(still: Standstill) -> str | None:
    """Start the services where there is no way back; what is wrong with them if something is."""
    try:
        still.start(give_up=False)
    except ServiceUnhealthy as exc:
        return str(exc)
    return None


def stage(step: Step, repository: Repository, runtime: Runtime) -> Sequence[str]:
    """Extract into the staging directory; returns tar's warnings. IntegrityError before a damaged byte is written.

    VolumeFull where there is less room than `plan_restore` saw: others write there, too, or small files take more.
    """
    swap = step.swap
    try:
        swap.prepare()
        runtime.progress.begin(f"restoring {step.archive.volume}", step.size)
        try:
            with swap.engine.tar_in(step.volume, swap.staging, acls=step.archive.has_acls, kept=True) as sink:
                _extract(step, repository, runtime, sink)
                report = sink.finish()
        finally:
            runtime.progress.end()
        swap.ready(step.selection.paths if step.selection else ())
    except VolumeFull as exc:
        needed = f"the restored data need {-(-step.size // MIB)} MiB beside the old ones"
        was = "" if step.survey is None else f", and {step.survey.free_bytes // MIB} MiB were free when it began"
        raise VolumeFull(
            f"the disk of {step.volume} is full: {needed}{was}",
            hint="make room there, restore volume by volume, or elsewhere with --into or --to-dir",
        ) from exc
    helped = repository.elsewhere.summary() if repository.elsewhere is not None else []
    return [*report.warnings, *(f"{step.archive.volume}: {text}" for text in helped)]


def _extract(step: Step, repository: Repository, runtime: Runtime, sink: TarInput) -> None:
    archive = step.archive
    if step.selection is None:
        stream = repository.tar(archive)
    else:
        stream = read_ranges(repository, archive, step.selection.ranges)
    for chunk in stream:
        sink.write(chunk)
        runtime.progress.advance(len(chunk))
    if step.selection is not None:
        sink.write(END_OF_TAR)


def _safety_snapshot(
    steps: Sequence[Step], request: RestoreRequest, repository: Repository, runtime: Runtime
) -> Manifest | None:
    """A snapshot of what is there now, unless there is nothing or the user does not want one."""
    targets = [step for step in steps if step.survey is not None and not step.survey.empty]
    if not targets or not request.safety_snapshot:
        return None
    runtime.progress.note("taking a safety snapshot of what is there now (--no-safety-snapshot skips it)")
    specs = tuple(_spec_of(step) for step in targets)
    try:
        repository = repository.helped_by(None)  # a new snapshot leans on what its own store has
        with runtime.leases(repository.store).shared("safety snapshot before a restore") as lease:
            manifest = take_snapshot(Plan(SAFETY_PLAN, specs, ()), runtime, repository, lease, "safety", locked=True)
        if manifest.failures:
            raise SourceError("; ".join(f"{failure.volume}: {failure.error}" for failure in manifest.failures))
    except BackupdError as exc:
        raise type(exc)(
            f"the safety snapshot failed, nothing was changed: {exc}",
            hint=exc.hint or "--no-safety-snapshot restores without one",
        ) from exc
    runtime.progress.note(f"what is there now is safety snapshot {manifest.short_id}")
    return manifest


def _spec_of(step: Step) -> VolumeSpec:
    volume = step.volume
    if volume.kind == "volume":
        return VolumeSpec(step.archive.volume, volume=volume.source)
    return VolumeSpec(step.archive.volume, path=volume.source)
