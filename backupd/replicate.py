"""Copies snapshots from store to store, so that every store of a plan holds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from backupd.errors import BackupdError, IntegrityError, ObjectExists, ObjectNotFound
from backupd.ports import Progress
from backupd.repository import HashedWriter, Manifest, ObjectRef, Repository, read_pieces


@dataclass(frozen=True, slots=True)
class Owed:
    """A snapshot that a store lacks, and a repository that has it."""

    manifest: Manifest
    source: Repository


def lagging(repositories: Sequence[Repository], plan: str) -> Mapping[str, Sequence[Owed]]:
    """What each store lacks of a plan's snapshots, by store name, oldest first.

    A store is owed what is newer than its own newest snapshot of the plan: what is older and absent there was pruned.
    """
    held: dict[str, list[Manifest]] = {}
    everywhere: dict[str, Owed] = {}
    for repository in repositories:
        manifests = [manifest for manifest in repository.snapshots()[0] if manifest.plan == plan]
        held[repository.store.name] = manifests
        for manifest in manifests:
            everywhere.setdefault(manifest.id, Owed(manifest, repository))
    inorder = sorted(everywhere.values(), key=lambda owed: owed.manifest.time)
    return {
        name: [owed for owed in inorder if not manifests or owed.manifest.time > manifests[0].time]
        for name, manifests in held.items()
    }


def catch_up(
    owed: Mapping[str, Sequence[Owed]],
    primary: Repository,
    manifest: Manifest,
    others: Sequence[Repository],
    progress: Progress,
) -> dict[str, BackupdError]:
    """Copy the new snapshot, and what was owed before it, to the other stores; returns the stores that failed, and why.

    A snapshot that is damaged where it would be copied from is passed over; any other failure ends the work on that
    store, and the next run resumes it.
    """
    failures: dict[str, BackupdError] = {}
    for target in others:
        for debt in (*owed.get(target.store.name, ()), Owed(manifest, primary)):
            try:
                copy_snapshot(debt.manifest, debt.source, target, progress)
            except IntegrityError as exc:
                failures[target.store.name] = exc
            except BackupdError as exc:
                failures[target.store.name] = exc
                break
    return failures


def copy_snapshot(manifest: Manifest, source: Repository, target: Repository, progress: Progress) -> None:
    """Copy a snapshot and all it needs; what the target holds already is not sent again. The manifest goes last."""
    missing = [ref for archive in manifest.archives for ref in archive.objects if not _holds(target, ref)]
    progress.begin(f"{manifest.short_id} → {target.store.name}", sum(ref.size for ref in missing))
    try:
        for ref in missing:
            _copy(ref, source, target, progress)
        target.commit(manifest)
    except ObjectExists:
        if manifest.id not in target.snapshot_ids():
            raise
    finally:
        progress.end()


def _holds(target: Repository, ref: ObjectRef) -> bool:
    try:
        return target.store.stat(ref.key).size == ref.size
    except ObjectNotFound:
        return False


def _copy(ref: ObjectRef, source: Repository, target: Repository, progress: Progress) -> None:
    with HashedWriter(target.store, ref.key, ref.size) as writer:
        for piece in read_pieces(source.store, ref):
            writer.write(piece)
            progress.advance(len(piece))
        writer.commit()
