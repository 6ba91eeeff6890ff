"""Copies snapshots from store to store, so that every store of a plan holds them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from functools import cache, partial
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from backupd.errors import BackupdError, IntegrityError, ObjectExists, StoreError
from backupd.lease import Lease, commit
from backupd.model import Plan
from backupd.ports import Clock, Progress
from backupd.repository import HashedWriter, Manifest, ObjectRef, Repository, proven, read_pieces, standings
from backupd.retention import kept_ids

Note = Callable[[str], None]
Wanted = Callable[[Sequence[Manifest]], AbstractSet[str]]


def _silent(_text: str) -> None:
    """Nobody is told."""


class Inventory(Struct, frozen=True):
    """The snapshots of a plan that a store holds, newest first.

    `wanted` tells which of a plan's snapshots the store is to keep: the others are not brought back to it once they
    were pruned. None: all of them. `spoilt` tells the ids of what is known to be damaged there; it is only called when
    something depends on it, and does not fail.
    """

    manifests: tuple[Manifest, ...]
    wanted: Wanted | None = None
    spoilt: Callable[[], AbstractSet[str]] = frozenset

    def has(self, snapshot_id: str) -> bool:
        """Whether it holds a snapshot."""
        return any(manifest.id == snapshot_id for manifest in self.manifests)

    def sound(self, manifests: Sequence[Manifest]) -> list[Manifest]:
        """Those of its snapshots that are not known to be damaged here."""
        return [manifest for manifest in manifests if manifest.id not in self.spoilt()] if manifests else []


class Holding(Inventory, frozen=True, kw_only=True):
    """The same of a repository that snapshots may be written to, by the lease; `damaged` says which can't be read."""

    repository: Repository
    lease: Lease
    damaged: tuple[BackupdError, ...] = ()

    @property
    def name(self) -> str:
        """The store's name."""
        return self.repository.store.name

    def with_newest(self, manifest: Manifest) -> Holding:
        """The same with one snapshot more."""
        return replace(self, manifests=(manifest, *self.manifests))


def look(
    repository: Repository, plan: Plan, lease: Lease, clock: Clock, state: Path | None = None, note: Note = _silent
) -> Holding:
    """What a repository holds of a plan now. Records of drills are looked for in the directory `state` as well."""
    manifests, damaged = repository.snapshots()
    return Holding(
        manifests=tuple(found for found in manifests if found.plan == plan.name),
        wanted=wanted_in(repository.store.name, plan, clock.now(), repository, state),
        spoilt=spoilt_in(repository, note),
        repository=repository,
        lease=lease,
        damaged=tuple(damaged),
    )


def wanted_in(
    store: str, plan: Plan, now: datetime, repository: Repository | None, state: Path | None
) -> Wanted | None:
    """Which snapshots of a plan a store is to keep; None: all. A store without a repository has proven nothing."""
    policy = plan.keep.get(store)
    if policy is None:
        return None
    good = proven(repository, state) if repository is not None and policy.asks_for_proven else ()
    return partial(kept_ids, policy=policy, now=now, timezone=plan.timezone, proven=good)


def spoilt_in(repository: Repository, note: Note = _silent) -> Callable[[], AbstractSet[str]]:
    """Tells the ids of what is known to be damaged in a store, which is asked once, when they are first asked for."""
    return cache(partial(_spoilt, repository, note))


def _spoilt(repository: Repository, note: Note) -> AbstractSet[str]:
    """What its records say is damaged; a store that can't be asked must not stop what is done in the others."""
    try:
        return standings(repository).damaged
    except StoreError as exc:
        note(f"store {repository.store.name}: cannot tell what is damaged there: {exc}")
        return frozenset()


def lagging(target: Inventory, holdings: Sequence[Inventory]) -> list[Manifest]:
    """What the target lacks of the others' snapshots and would keep if it had it, oldest first.

    As prune sees it: what is known to be damaged, in the target or wherever it could be had, takes nobody's place.
    """
    everywhere = {manifest.id: manifest for holding in holdings for manifest in holding.manifests}
    owed = [manifest for manifest in everywhere.values() if not target.has(manifest.id)]
    if owed and target.wanted is not None:
        wanted = target.wanted([*target.manifests, *owed])
        if not wanted >= {manifest.id for manifest in owed}:  # else nothing changes that, and the records stay unread
            wanted = target.wanted([*target.sound(target.manifests), *_to_be_had(owed, holdings)])
        owed = [manifest for manifest in owed if manifest.id in wanted]
    return sorted(owed, key=lambda manifest: manifest.time)


def _to_be_had(owed: Sequence[Manifest], holdings: Sequence[Inventory]) -> list[Manifest]:
    """Those that some store holds and is not known to hold damaged."""
    sound = {one.id for held in holdings for one in held.sound([one for one in owed if held.has(one.id)])}
    return [manifest for manifest in owed if manifest.id in sound]


def catch_up(target: Holding, holdings: Sequence[Holding], progress: Progress) -> BackupdError | None:
    """Copy to the target what it lacks; returns what went wrong, if anything did.

    A snapshot that is damaged in one store is taken from another; one that is damaged in all is passed over. Any other
    failure ends the work, and the next run resumes it.
    """
    failure: BackupdError | None = None
    for manifest in lagging(target, holdings):
        damage: BackupdError | None = None
        for source in (held.repository for held in holdings if held.has(manifest.id)):
            try:
                copy_snapshot(manifest, source, target.repository, target.lease, progress)
            except IntegrityError as exc:
                damage = exc
            except BackupdError as exc:
                return exc
            else:
                damage = None
                break
        failure = failure or damage
    return failure


def copy_snapshot(manifest: Manifest, source: Repository, target: Repository, lease: Lease, progress: Progress) -> None:
    """Copy a snapshot and all it needs; what the target holds already is not sent again. The manifest goes last.

    Several processes may do so at once: whoever comes second finds that what it copied is there.
    """
    missing = [ref for archive in manifest.archives for ref in archive.objects if target.problem_with(ref)]
    progress.begin(f"{manifest.short_id} → {target.store.name}", sum(ref.size for ref in missing))
    try:
        for ref in missing:
            _copy(ref, source, target, progress)
        data = source.stored(manifest.id)
        try:
            commit(target, manifest, lease, data)
        except ObjectExists:
            if target.stored(manifest.id) != data:
                raise
    finally:
        progress.end()


def _copy(ref: ObjectRef, source: Repository, target: Repository, progress: Progress) -> None:
    try:
        with HashedWriter(target.store, ref.key, ref.size) as writer:
            for piece in read_pieces(source.store, ref):
                writer.write(piece)
                progress.advance(len(piece))
            writer.commit()
    except ObjectExists:
        if target.problem_with(ref):
            raise
