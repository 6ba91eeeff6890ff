"""Prune: manifests first, then what only they needed, under a lease that nobody else has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from msgspec import Struct, field
from msgspec.structs import replace

from backupd.errors import BackupdError, LockedError, StoreDenied, StoreError
from backupd.immutability import Extended, extend_locks
from backupd.known import KnownRepositories
from backupd.lease import Lease
from backupd.locking import OldVersions, versions_of
from backupd.prune.outline import Outline, PruneRequest, outline
from backupd.prune.safety import refuse_unless_safe
from backupd.repository import Repository, forget_records, layout
from backupd.runtime import Runtime
from backupd.verify.recording import Look, keep_findings
from backupd.verify.verifier import Finding

_PARALLEL_DELETES = 8

_NEVER = datetime.min.replace(tzinfo=UTC)


class Pruned(Struct, frozen=True):
    """What was done: ids of the snapshots that are gone, objects and bytes that are, and what the store kept.

    `left` are the keys that the store refused to delete. `renewed` locks of what stays were extended, `unlocked` is
    what the store said against that. `old` is what is still there of deleted objects, None where nothing is.
    """

    outline: Outline
    snapshots: tuple[str, ...] = ()
    objects: int = 0
    bytes: int = 0
    left: tuple[str, ...] = ()
    renewed: int = 0
    unlocked: StoreError | None = None
    old: OldVersions | None = None


def prune(
    repository: Repository, request: PruneRequest, runtime: Runtime, seen: Callable[[Outline], None] = lambda _: None
) -> Pruned:
    """Remove what the request says; `seen` is told what that comes to, before anything is deleted or refused.

    Killed at any moment, it leaves a store whose snapshots are all whole, and objects that the next run removes.
    Raises what `refuse_unless_safe` does; LockedError while another backupd writes or prunes; LeaseLost when this
    process stood still for so long that another one went on.
    """
    store = repository.store
    KnownRepositories(runtime.state).check(store.name, repository.config.id)
    with runtime.leases(store).exclusive("prune") as lease:
        now = runtime.clock.now()
        store_now = lease.store_time() or now
        found = outline(repository, request, now, store_now, runtime.state)
        seen(found)
        extended = extend_locks(repository, found.kept, now) if request.by_rules else Extended()
        try:
            checked = refuse_unless_safe(found, repository, runtime.progress, by_id=bool(request.ids))
        except BackupdError:
            lease.confirm()  # what is missing may be what another prune has removed
            raise
        versions = versions_of(store)
        if found.nothing_goes and (versions is None or not versions.purges):
            return Pruned(found, renewed=extended.renewed, unlocked=extended.failure)
        _note_the_unverified(checked, found, repository, runtime, now)
        pruned = Pruned(found) if found.nothing_goes else _Removal(repository, lease, runtime, found).run()
        pruned = replace(pruned, renewed=extended.renewed, unlocked=extended.failure)
        if versions is not None:
            lease.confirm()
            # While something is missing that nobody here removed, what is hidden may be just that.
            before = _NEVER if found.lacks_something else (lease.store_time() or now) - request.rules.grace
            pruned = replace(pruned, old=versions.tidy(before))
        lease.confirm()
        store.remove_stale_uploads(request.rules.grace, store_now)
    return pruned


def _note_the_unverified(
    checked: Sequence[Finding], found: Outline, repository: Repository, runtime: Runtime, started: datetime
) -> None:
    """What was looked at for this is known from now on. A store that takes no record of it is pruned all the same."""
    for manifest in found.kept:
        own = [finding for finding in checked if finding.snapshot == manifest.id]
        if own and found.standings.get(manifest.id).state == "unverified":
            try:
                keep_findings(repository, manifest, own, Look(started, "sizes"), runtime)
            except BackupdError as exc:
                runtime.progress.note(f"the check of snapshot {manifest.short_id} is not noted: {exc}")


class _Removal(Struct):
    """The deletes, each of them under a lease that has not run out."""

    repository: Repository
    lease: Lease
    runtime: Runtime
    outline: Outline
    left: list[str] = field(default_factory=list)

    def run(self) -> Pruned:
        going = [manifest.id for manifest in reversed(self.outline.removed)] + sorted(self.outline.dropped)
        self.repository.forget(going)
        gone = [id_ for id_ in going if self._delete(layout.snapshot(id_))]
        self._require_that_nobody_wrote()
        # What a manifest needs that the store would not let go of stays, too.
        listed = (*self.outline.kept, *self.outline.waiting, *self.outline.removed)
        staying = [manifest for manifest in listed if manifest.id not in gone]
        stay = {manifest.id for manifest in staying}
        needed = {ref.key for manifest in staying for archive in manifest.archives for ref in archive.objects}
        idle = set(self.outline.standings.idle)
        forget_records(self.repository, gone)
        doomed = {
            key: size
            for part in (self.outline.only_theirs, self.outline.garbage, self.outline.leftovers)
            for key, size in part.items()
            if key not in needed and (key in idle or layout.recorded_snapshot(key) not in stay)
        }
        removed = self._delete_all(doomed)
        return Pruned(
            self.outline, tuple(gone), len(removed), sum(doomed[key] for key in removed), tuple(sorted(self.left))
        )

    def _require_that_nobody_wrote(self) -> None:
        """A look that finds nothing as long as all keep to the leases; one snapshot overlooked would be one lost."""
        self.lease.confirm()
        known = {layout.snapshot_id(key) for key in self.outline.sizes}
        if strangers := self.repository.snapshot_ids() - known:
            raise LockedError(
                f"store {self.repository.store.name} changed while it was pruned: {', '.join(sorted(strangers))}",
                hint="run `backupd prune` again, with nothing else at work",
            )

    def _delete(self, key: str) -> bool:
        self.lease.require()
        try:
            self.repository.store.delete(key)
        except StoreDenied:
            self.left.append(key)
            return False
        return True

    def _delete_all(self, sizes: dict[str, int]) -> list[str]:
        progress = self.runtime.progress
        removed = []
        progress.begin(f"pruning {self.repository.store.name}", sum(sizes.values()))
        pool = ThreadPoolExecutor(_PARALLEL_DELETES)
        try:
            keys = sorted(sizes)
            for key, done in zip(keys, pool.map(self._delete, keys), strict=True):
                progress.advance(sizes[key])
                removed += [key] if done else []
        finally:
            pool.shutdown(cancel_futures=True)
            progress.end()
        return removed
