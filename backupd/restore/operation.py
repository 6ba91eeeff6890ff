"""Restore: a snapshot's archives back into volumes, staged and swapped."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from backupd.backup import take_snapshot
from backupd.errors import BackupdError, SourceError
from backupd.journal import Journal, RestoreAct
from backupd.lock import volume_lock
from backupd.model import Plan, VolumeSpec
from backupd.ports import TarInput
from backupd.repository import END_OF_TAR, Manifest, Repository, read_ranges
from backupd.restore.target import RestoreRequest, Step, looked_at_again, refuse_if_used
from backupd.runtime import Runtime

SAFETY_PLAN = "safety"


@dataclass(frozen=True, slots=True)
class RestoreResult:
    """What was restored, and the safety snapshot that was taken first, if there was anything to save."""

    steps: tuple[Step, ...]
    safety: Manifest | None
    warnings: tuple[str, ...]


def restore(
    steps: Sequence[Step],
    request: RestoreRequest,
    repository: Repository,
    runtime: Runtime,
) -> RestoreResult:
    """Carry out a planned restore: all volumes are swapped, or none is.

    Every byte is extracted and checked beside the old data before the first rename. When anything fails, what was
    swapped is swapped back and what was staged is removed. After a kill `recover` does that from the journal, or goes
    on with all volumes if all of them had been staged.
    """
    with ExitStack() as stack:
        for step in steps:
            stack.enter_context(volume_lock(runtime.locks, step.volume))
        steps = looked_at_again(steps, request)
        safety = _safety_snapshot(steps, request, repository, runtime)
        for step in steps:
            if step.survey is None:
                step.swap.engine.create(step.volume)
        journal = Journal(runtime.state)
        acts = [
            journal.begin(
                RestoreAct(volume=step.volume, swap=step.swap.id, keep_old=request.keep_old), runtime.clock.now()
            )
            for step in steps
        ]
        warnings: list[str] = []
        try:
            for step in steps:
                warnings += stage(step, repository, runtime)
            refuse_if_used(steps, request)
            journal.decide(acts, forward=True)
            for step in steps:
                step.swap.swap()
        except BaseException as exc:
            journal.decide(acts, forward=False)
            _undo(steps, runtime, exc)
            journal.end(acts)
            raise
        for step in steps:
            step.swap.finish(keep_old=request.keep_old)
        journal.end(acts)
    return RestoreResult(tuple(steps), safety, tuple(warnings))


def stage(step: Step, repository: Repository, runtime: Runtime) -> Sequence[str]:
    """Extract into the staging directory; returns tar's warnings. IntegrityError before a damaged byte is written."""
    swap = step.swap
    swap.prepare()
    runtime.progress.begin(f"restoring {step.archive.volume}", step.size)
    try:
        with swap.engine.tar_in(step.volume, swap.staging) as sink:
            _extract(step, repository, runtime, sink)
            report = sink.finish()
    finally:
        runtime.progress.end()
    swap.ready(step.selection.paths if step.selection else ())
    return report.warnings


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
        manifest = take_snapshot(Plan(SAFETY_PLAN, specs, ()), runtime, repository, "safety", locked=True)
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


def _undo(steps: Sequence[Step], runtime: Runtime, reason: BaseException) -> None:
    """Put everything back. A failure leaves the journal as it is, for `recover`."""
    failed = None
    for step in steps:
        try:
            step.swap.undo()
        except BackupdError as exc:
            runtime.progress.note(f"{step.volume}: could not be put back: {exc}")
            failed = failed or exc
        if step.survey is None:
            runtime.progress.note(f"{step.volume} was created for this restore, and stays, empty")
    if failed is not None:
        raise SourceError(
            f"the restore failed ({str(reason) or type(reason).__name__}) and could not be undone: {failed}",
            hint="run `backupd recover`",
        ) from reason
