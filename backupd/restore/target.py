"""What a restore is about to do, and whether it may."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from backupd.errors import (
    IntegrityError,
    ObjectNotFound,
    SnapshotNotFound,
    SourceError,
    UsageError,
    VolumeInUse,
    VolumeMissing,
)
from backupd.model import MIB, Volume, VolumeSpec
from backupd.ports import Engine
from backupd.repository import Archive, Manifest, Repository, Selection, select_paths, spans
from backupd.restore.swap import Survey, Swap
from backupd.runtime import Runtime

# What BusyBox's tar gets wrong without saying so (docs/FORMAT.md): holes become a file of another name, and long names are
# cut. What it merely loses is in `_LOST`.
_WRONG = ("sparse", "long-name")
_LOST = ("xattr", "acl", "nanoseconds")


@dataclass(frozen=True, slots=True)
class RestoreRequest:
    """What was asked for. `volumes` empty means all of the snapshot's; `paths` are normalized."""

    volumes: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    into: VolumeSpec | None = None
    force: bool = False
    safety_snapshot: bool = True
    keep_old: bool = False


@dataclass(frozen=True, slots=True)
class Step:
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

    SnapshotNotFound for a volume that the snapshot lacks, IntegrityError when the store lacks a part of it,
    VolumeInUse, SourceError for too little room, a tar that can't extract the archive, or an interrupted restore.
    """
    archives = _chosen(request, manifest)
    if request.into is not None and len(archives) != 1:
        raise UsageError(f"--into takes one volume, and {len(archives)} would be restored", hint="name one of them")
    steps = []
    for archive in archives:
        _check_stored(repository, archive)
        target = _target(request, archive, runtime.engine, configured)
        swap = Swap(runtime.engine, target, f"{manifest.short_id}-{runtime.new_id()[:6]}")
        steps.append(_step(request, archive, swap, repository))
    return steps


def _chosen(request: RestoreRequest, manifest: Manifest) -> list[Archive]:
    chosen = []
    for name in request.volumes or [archive.volume for archive in manifest.archives]:
        archive = manifest.archive(name)
        if archive is None:
            held = ", ".join(archive.volume for archive in manifest.archives)
            raise SnapshotNotFound(f"snapshot {manifest.short_id} holds no volume {name}", hint=f"it holds: {held}")
        chosen.append(archive)
    return chosen


def _target(request: RestoreRequest, archive: Archive, engine: Engine, configured: Mapping[str, VolumeSpec]) -> Volume:
    """The volume to write: the one asked for, the configured one, or the one that was backed up."""
    recorded = archive.source
    spec = request.into or configured.get(archive.volume)
    if spec is None:
        return engine.inspect(recorded) or recorded
    try:
        return engine.find(spec)
    except VolumeMissing:
        if request.into is None and (spec.volume is not None) == (recorded.kind == "volume"):
            return recorded
        if spec.volume is not None:
            return Volume(name=archive.volume, kind="volume", source=spec.volume)
        raise


def _check_stored(repository: Repository, archive: Archive) -> None:
    for ref in archive.objects:
        try:
            size = repository.store.stat(ref.key).size
        except ObjectNotFound as exc:
            raise IntegrityError(f"{repository.store.name}: {ref.key} is missing") from exc
        if size != ref.size:
            raise IntegrityError(f"{repository.store.name}: {ref.key} has {size} bytes instead of {ref.size}")


def _step(request: RestoreRequest, archive: Archive, swap: Swap, repository: Repository) -> Step:
    engine, volume = swap.engine, swap.volume
    selection = None
    if request.paths:
        selection = select_paths(lambda: spans(repository.files(archive), archive.plain_size), request.paths)
    if engine.inspect(volume) is None:
        return Step(archive, swap, None, selection, _tar_notes(archive, engine))
    users = engine.consumers(volume)
    notes = [f"{user.name} is running and uses {volume}" for user in users]
    if users and not request.force:
        raise VolumeInUse(
            f"{volume} is in use by {', '.join(user.name for user in users)}",
            hint=f"`docker stop {' '.join(user.name for user in users)}` first, or --force to write under them",
        )
    survey = swap.survey()
    if survey.interrupted:
        raise SourceError(
            f"{volume} holds an interrupted restore of {', '.join(survey.interrupted)}", hint="run `backupd recover`"
        )
    step = Step(archive, swap, survey, selection, (*notes, *_tar_notes(archive, engine)))
    if survey.free_bytes < step.size:
        raise SourceError(
            f"{volume} has {survey.free_bytes // MIB} MiB free, and the restored data need {-(-step.size // MIB)} MiB"
            " beside the old ones",
            hint="make room, or restore elsewhere with --into or --to-dir",
        )
    return step


def _tar_notes(archive: Archive, engine: Engine) -> tuple[str, ...]:
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
