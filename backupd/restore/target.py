"""What a restore is about to do, and whether it may."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from backupd.errors import (
    SnapshotNotFound,
    SourceError,
    UsageError,
    VolumeMissing,
)
from backupd.model import MIB, PROJECT_LABEL, VOLUME_LABEL, Volume, VolumeKind, VolumeSpec
from backupd.ports import Engine
from backupd.quiesce import HEALTHY_WITHIN_SECONDS
from backupd.repository import Archive, Manifest, Repository, Selection, select_paths, spans
from backupd.restore.swap import Survey, Swap
from backupd.runtime import Runtime

# What BusyBox's tar gets wrong without saying so (docs/FORMAT.md): holes become a file of another name, and long names
# are cut. What it merely loses is in `_LOST`.
_WRONG = ("sparse", "long-name")
_LOST = ("xattr", "acl", "nanoseconds")


class RestoreRequest(Struct, frozen=True):
    """What was asked for. `volumes` empty means all of the snapshot's; `paths` are normalized.

    `stop`: containers that use the volumes are stopped and started again; else it is an error if there are any.
    `force`: also containers that are not of the project (`project`, else the volume's own) and those that vanish when
    they are stopped; with `stop` off, write under running ones. `rollback`: back to the old data if a service is not
    well after `healthy_within_seconds`.
    """

    volumes: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    into: VolumeSpec | None = None
    force: bool = False
    safety_snapshot: bool = True
    keep_old: bool = False
    stop: bool = True
    rollback: bool = True
    healthy_within_seconds: float = HEALTHY_WITHIN_SECONDS
    project: str | None = None


class Step(Struct, frozen=True):
    """One volume of a restore: from which archive, to where.

    `survey` is None for a volume that is yet to be created.
    """

    archive: Archive
    swap: Swap
    survey: Survey | None
    selection: Selection | None
    notes: tuple[str, ...] = ()

    @property
    def volume(self) -> Volume:
        """Where the data go."""
        return self.swap.volume

    @property
    def size(self) -> int:
        """Plain bytes that will be extracted."""
        return self.archive.plain_size if self.selection is None else self.selection.size


def plan_restore(
    request: RestoreRequest,
    manifest: Manifest,
    repository: Repository,
    runtime: Runtime,
    configured: Mapping[str, VolumeSpec],
) -> Sequence[Step]:
    """Find every target and check all that can be checked without writing; nothing has changed when this raises.

    The containers around them are another matter: `around.refuse`. SnapshotNotFound for a volume that the snapshot
    lacks, IntegrityError when the store lacks a part of it, SourceError for too little room, a tar that can't extract
    the archive, or an interrupted restore.
    """
    archives = _chosen(request, manifest)
    if request.into is not None and len(archives) != 1:
        raise UsageError(f"--into takes one volume, and {len(archives)} would be restored", hint="name one of them")
    steps = []
    for archive in archives:
        repository.check_reachable(archive.objects)
        # A safety snapshot may be of another volume than its name says (--into): it goes back to where it was taken.
        spec = request.into or (None if manifest.reason == "safety" else configured.get(archive.volume))
        target = _target(spec, archive, runtime.engine, request.project)
        swap = Swap(runtime.engine, target, f"{manifest.short_id}-{runtime.new_id()[:6]}")
        steps.append(_step(request, archive, swap, repository))
    _check_room(steps)
    return steps


def _chosen(request: RestoreRequest, manifest: Manifest) -> list[Archive]:
    chosen = []
    for name in dict.fromkeys(request.volumes) or [archive.volume for archive in manifest.archives]:
        archive = manifest.archive(name)
        if archive is None:
            held = ", ".join(archive.volume for archive in manifest.archives)
            raise SnapshotNotFound(f"snapshot {manifest.short_id} holds no volume {name}", hint=f"it holds: {held}")
        chosen.append(archive)
    return chosen


def _target(spec: VolumeSpec | None, archive: Archive, engine: Engine, project: str | None) -> Volume:
    """The volume to write: the one asked for or configured, else the one that was backed up. It may yet be missing."""
    recorded = archive.source
    if spec is None:
        return engine.inspect(recorded) or recorded
    try:
        return engine.find(spec)
    except VolumeMissing:
        if spec.path is not None:
            kind: VolumeKind = "directory" if engine.name == "mounted" else "bind"
            return Volume(name=archive.volume, kind=kind, source=spec.path)
        assert spec.volume is not None  # exactly one of the two is set
        if recorded.kind == "volume" and f"_{recorded.source}".endswith(f"_{spec.volume}"):
            return _in_project(recorded, project)
        return Volume(name=archive.volume, kind="volume", source=spec.volume)


def _in_project(recorded: Volume, project: str | None) -> Volume:
    """A missing volume that Compose has named, as it would name it here.

    Where the stack has moved to the project may be called otherwise, and another project's volume is not meant.
    """
    old, name = recorded.labels.get(PROJECT_LABEL), recorded.labels.get(VOLUME_LABEL)
    if project is None or old is None or recorded.source != f"{old}_{name}":
        return recorded
    return msgspec.structs.replace(
        recorded, source=f"{project}_{name}", labels={**recorded.labels, PROJECT_LABEL: project}
    )


def _step(request: RestoreRequest, archive: Archive, swap: Swap, repository: Repository) -> Step:
    engine, volume = swap.engine, swap.volume
    selection = None
    if request.paths and "." not in request.paths:
        selection = select_paths(
            lambda: spans(repository.files(archive), archive.plain_size), request.paths, archive.volume
        )
    step = Step(archive, swap, None, selection, tar_notes(archive, engine))
    if engine.inspect(volume) is None:
        return step
    return _surveyed(step)


def looked_at_again(steps: Sequence[Step]) -> list[Step]:
    """The steps as they are by now, since a person may have thought it over for long. The volumes' locks are held."""
    again = []
    for step in steps:
        if step.swap.engine.inspect(step.volume) is not None:
            again.append(_surveyed(step))
        else:
            again.append(step)
    _check_room(again)
    return again


def _surveyed(step: Step) -> Step:
    survey = step.swap.survey()
    if survey.interrupted:
        raise SourceError(
            f"{step.volume} holds an interrupted restore of {', '.join(survey.interrupted)}",
            hint="run `backupd recover`",
        )
    return replace(step, survey=survey)


def _check_room(steps: Sequence[Step]) -> None:
    """SourceError if a file system can't hold the restored data of all its volumes beside the old ones."""
    surveyed = [(step, step.survey) for step in steps if step.survey is not None]
    for device in {survey.device for _, survey in surveyed}:
        here = [(step, survey) for step, survey in surveyed if survey.device == device]
        needed, free = sum(step.size for step, _ in here), min(survey.free_bytes for _, survey in here)
        if free < needed:
            raise SourceError(
                f"{', '.join(str(step.volume) for step, _ in here)}: {free // MIB} MiB are free, and the restored data"
                f" need {-(-needed // MIB)} MiB beside the old ones",
                hint="make room, restore volume by volume, or elsewhere with --into or --to-dir",
            )


def tar_notes(archive: Archive, engine: Engine) -> tuple[str, ...]:
    """What the engine's tar will lose of an archive; SourceError if it would extract it wrongly."""
    tool = engine.tool()
    if tool.flavour == "gnu":
        return ()
    if wrong := [feature for feature in _WRONG if feature in archive.features]:
        raise SourceError(
            f"{archive.volume}: {tool} cannot extract this archive faithfully ({', '.join(wrong)})",
            hint="set docker.helper_image to an image with GNU tar",
        )
    lost = [feature for feature in _LOST if feature in archive.features]
    return (f"{tool} will lose: {', '.join(lost)}",) if lost else ()
