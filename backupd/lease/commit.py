"""Committing a snapshot under a lease."""

from __future__ import annotations

from backupd.errors import IntegrityError, LeaseLost, ObjectExists
from backupd.lease.lease import Lease
from backupd.repository import Manifest, Repository, layout


def commit(repository: Repository, manifest: Manifest, lease: Lease, data: bytes | None = None) -> Manifest:
    """Write the manifest, after everything that it refers to was looked up once more; returns it as it is read then.

    `data` is the manifest as another store holds it, signature and all.

    LeaseLost, and no snapshot, if the lease was taken away: what the snapshot needs may have been pruned.
    IntegrityError if something that it needs is gone all the same. StoreError, and no snapshot that anybody will find,
    if the store is no longer the one that was opened: a directory that was unmounted meanwhile is there, and empty.
    """
    lease.confirm()
    repository.require_still_there()
    try:
        repository.check(ref for archive in manifest.archives for ref in archive.objects)
    except IntegrityError:
        lease.confirm()
        raise
    try:
        if data is None:
            manifest = repository.commit(manifest)
        else:
            repository.copy(manifest, data)
    except ObjectExists as exc:
        if repository.store.read(layout.snapshot(manifest.id)) == layout.WITHDRAWN:
            raise LeaseLost(f"store {repository.store.name}: snapshot {manifest.short_id} was given up") from exc
        raise
    repository.require_still_there()
    try:
        lease.confirm()
    except LeaseLost:
        repository.forget([manifest.id])
        repository.store.delete(layout.snapshot(manifest.id))
        raise
    return manifest
