"""Backup: one run of a plan becomes one snapshot, in every store of the plan."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import timedelta

from backupd.archive import ChunkerParameters, codec_for
from backupd.backup.archiving import ArchiveJob, Origin
from backupd.backup.parent import find_parent
from backupd.errors import (
    BackupdError,
    EngineUnavailable,
    IntegrityError,
    LockedError,
    NoRepository,
    RepositoryError,
    SourceError,
    StoreError,
    VolumeMissing,
)
from backupd.journal import Journal
from backupd.known import KnownRepositories
from backupd.lock import volume_lock
from backupd.model import Plan, Volume, VolumeSpec
from backupd.ports import Store
from backupd.replicate import Holding, catch_up, look
from backupd.repository import Archive, Failure, Manifest, Reason, Repository
from backupd.runtime import Runtime

# What speaks against one store, and not against the volumes.
_STORE_TROUBLE = (StoreError, RepositoryError, IntegrityError)

_STALE_AFTER = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class BackupResult:
    """The snapshot that was taken, where it is, and which stores could not be brought up to date."""

    manifest: Manifest
    store: str
    store_failures: dict[str, str] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether all volumes are in it and all stores have it."""
        return self.manifest.complete and not self.store_failures


def back_up(plan: Plan, runtime: Runtime, stores: Sequence[Store]) -> BackupResult:
    """Take a snapshot into the first store that can be written, and bring the other stores up to date from it.

    A store that fails is passed over and named in the result; the next run catches it up. StoreError when none of them
    took the snapshot, SourceError when no volume could be read.
    """
    holdings: list[Holding] = []
    failures: dict[str, BackupdError] = {}

    def failed(store: Store, exc: BackupdError) -> None:
        failures[store.name] = exc
        runtime.progress.note(f"store {store.name} failed: {exc}")

    for store in stores:
        try:
            sweep(store, runtime)
            holdings.append(look(open_or_create(store, runtime), plan.name))
        except BackupdError as exc:
            failed(store, exc)
    damaged = {held.name: held.damaged[0] for held in holdings if held.damaged}
    for damage in (damage for held in holdings for damage in held.damaged):
        runtime.progress.note(f"damaged: {damage}")
    for holding in holdings:
        primary = holding.repository
        try:
            # What other stores took while this one was away: afterwards it would pass for pruned.
            behind = catch_up(holding, holdings, runtime.progress)
            manifest = take_snapshot(plan, runtime, primary)
        except _STORE_TROUBLE as exc:
            failed(primary.store, exc)
            continue
        if behind is not None:
            failed(primary.store, behind)
        sources = [held.with_newest(manifest) if held is holding else held for held in holdings]
        usable = [held for held in sources if held.name not in failures or held.name == primary.store.name]
        for target in usable:
            behind = None if target.name == primary.store.name else catch_up(target, usable, runtime.progress)
            if behind is not None:
                failed(target.repository.store, behind)
        store_failures = {name: str(exc) for name, exc in (damaged | failures).items()}
        return BackupResult(manifest, primary.store.name, store_failures)
    raise next(iter(failures.values()))


def open_or_create(store: Store, runtime: Runtime) -> Repository:
    """The store's repository; an empty store becomes one, unless it held one before (StoreError)."""
    known = KnownRepositories(runtime.state)
    try:
        repository = Repository.open(store, threads=runtime.threads)
    except NoRepository:
        known.check(store.name, None)
        repository = Repository.open_or_create(
            store,
            threads=runtime.threads,
            now=runtime.clock.now(),
            new_id=runtime.new_id,
            chunker=ChunkerParameters(),
        )
    known.check(store.name, repository.config.id)
    known.remember(store.name, repository.config.id)
    return repository


def sweep(store: Store, runtime: Runtime) -> None:
    """Remove what killed backups left half-written in a store, a day after they began it."""
    for removed in store.remove_stale_uploads(_STALE_AFTER, runtime.clock.now()):
        runtime.progress.note(f"store {store.name}: removed an unfinished upload: {removed}")


def take_snapshot(
    plan: Plan, runtime: Runtime, repository: Repository, reason: Reason = "backup", *, locked: bool = False
) -> Manifest:
    """Archive every volume of the plan, then commit the manifest.

    A volume that can't be read is a failure of the snapshot, and the others are kept; SourceError if none is left.
    `locked` says that the caller holds the volumes' locks.
    """
    started = runtime.clock.now()
    snapshot_id = runtime.new_id()
    # Asked once, before any volume: an engine or helper image that does not work is not the fault of each of them.
    tool = runtime.engine.tool()
    if tool.flavour == "busybox":
        runtime.progress.note(
            f"{tool} keeps no extended attributes, ACLs, holes and fractions of seconds; GNU tar does"
            " (docker.helper_image)"
        )
    parents, _ = repository.snapshots()
    snapshot = _Snapshot(snapshot_id, plan, runtime, repository, parents)
    archives: list[Archive] = []
    failures: list[Failure] = []
    errors: list[BackupdError] = []
    for spec in plan.volumes:
        try:
            volume = runtime.engine.find(spec)
            with nullcontext() if locked else volume_lock(runtime.locks, volume):
                archives.append(snapshot.archive(spec, volume))
        except EngineUnavailable:
            raise
        except (SourceError, LockedError) as exc:
            errors.append(exc)
            optional = spec.optional and isinstance(exc, VolumeMissing)
            failures.append(Failure(volume=spec.name, error=str(exc), optional=optional))
            runtime.progress.note(f"{spec.name}: {'left out' if optional else 'FAILED'}: {exc}")
    if not archives:
        raise _nothing(failures, errors)
    manifest = Manifest(
        id=snapshot_id,
        time=started,
        finished=runtime.clock.now(),
        plan=plan.name,
        reason=reason,
        host=runtime.host,
        program=runtime.program,
        archives=archives,
        failures=failures,
    )
    repository.commit(manifest)
    return manifest


def _nothing(failures: Sequence[Failure], errors: Sequence[BackupdError]) -> BackupdError:
    """The error of a run that read no volume: of the kind that all volumes failed with, if they agree."""
    if len(errors) == 1:
        return errors[0]
    kind = type(errors[0]) if len({type(error) for error in errors}) == 1 else SourceError
    reasons = "; ".join(f"{failure.volume}: {failure.error}" for failure in failures)
    return kind(f"no volume could be backed up: {reasons}")


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """A snapshot being taken."""

    id: str
    plan: Plan
    runtime: Runtime
    repository: Repository
    earlier: Sequence[Manifest]

    def archive(self, spec: VolumeSpec, volume: Volume) -> Archive:
        """Archive one volume, whose lock is held."""
        runtime = self.runtime
        started = runtime.clock.now()
        if Journal(runtime.state).concerns(volume):
            raise SourceError(f"{volume} holds an interrupted restore", hint="`backupd recover` says what hinders it")
        if writers := [user.name for user in runtime.engine.consumers(volume) if user.writable]:
            runtime.progress.note(f"{spec.name}: copied as it is, while {', '.join(writers)} can write to it")
        parent = find_parent(self.repository, self.earlier, spec.name, self.plan.full_every, started, runtime.progress)
        last = next((archive for manifest in self.earlier if (archive := manifest.archive(spec.name))), None)
        runtime.progress.begin(f"reading {spec.name}", last.plain_size if last else None)
        try:
            origin = Origin(self.id, volume, runtime.engine.tool(), "live", started)
            job = ArchiveJob(self.repository, codec_for(self.plan.compression), runtime.progress, runtime.clock)
            with runtime.engine.tar_out(volume, spec.exclude) as stream:
                return job.store(stream, origin, parent, last.plain_size if last else None)
        finally:
            runtime.progress.end()
