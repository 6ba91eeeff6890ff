"""Which earlier archive a new one builds on, and what it therefore need not store again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from msgspec import Struct

from backupd.archive import ChunkOrder, Location
from backupd.errors import IntegrityError, KeyMissing
from backupd.model import FullEvery
from backupd.ports import Progress
from backupd.repository import Archive, Base, Manifest, ObjectRef, Repository, standing_of


class Parent(Struct, frozen=True):
    """The archive that a new one builds on.

    `snapshot` is None for what was read first in the snapshot that is being taken, if that began anew. `objects` are
    the data objects that chunks may be taken from, in the order of the new index's numbers 1, 2, ….
    `known` maps digests to places in them, `order` says how they followed: about 300 bytes of memory a chunk, so
    120 MB for 1 TB of plain data.
    """

    snapshot: str | None
    base: Base
    objects: Sequence[ObjectRef]
    known: Mapping[str, Location]
    order: ChunkOrder


def find_parent(
    repository: Repository,
    manifests: Sequence[Manifest],
    volume: str,
    full_every: FullEvery,
    now: datetime,
    progress: Progress,
) -> Parent | None:
    """The newest archive of the volume, if it may be built upon; None says that a full archive is due.

    Everything that the new snapshot would lean on is looked up in the store first: an archive is never built on one
    of which a part is missing.
    """
    # A safety snapshot is soon pruned and may be of another volume, and an import was made by another tar.
    for manifest in sorted(manifests, key=lambda manifest: manifest.reason == "import"):
        archive = manifest.archive(volume)
        if archive is None or manifest.reason == "safety":
            continue
        if full_every.age is not None and now - archive.base.time >= full_every.age:
            return None
        reason = _unfit(repository, manifest, volume)
        try:
            if reason is None:
                return _load(repository, manifest, archive)
        except (IntegrityError, KeyMissing) as exc:
            reason = str(exc)
        progress.note(f"{volume}: not building on snapshot {manifest.short_id}, starting anew: {reason}")
        return None
    return None


def _unfit(repository: Repository, manifest: Manifest, volume: str) -> str | None:
    """Why a new snapshot must not lean on this one: it is damaged, or not all that it needs is legible to the new one's
    recipients and nobody else. More readers are none the worse off: they could read those chunks before.
    """
    if check := standing_of(repository, manifest.id).damaged.get(volume):
        return f"the check of {check.time:%Y-%m-%d %H:%M} UTC found it damaged"
    ours, theirs = repository.encryption, manifest.encryption
    if ours is None and theirs is None:
        return None
    if ours is None:
        return "it is encrypted, and the new one is not"
    if theirs is None:
        return "it is not encrypted"
    others = len(set(ours.recipients) - set(theirs.recipients))
    return f"{others} of the recipients cannot read it" if others else None


def _load(repository: Repository, manifest: Manifest, archive: Archive) -> Parent:
    repository.check(archive.needs)
    index = repository.index(archive, cached=True)
    numbers = {ref.key: number for number, ref in enumerate(archive.needs, start=1)}
    known: dict[str, Location] = {}
    order = ChunkOrder()
    try:
        for chunk in index:
            known[chunk.digest] = Location(numbers[index.archives[chunk.archive]], chunk.offset, chunk.stored_size)
            order.append(chunk.digest, chunk.plain_size)
    except KeyError as exc:
        raise IntegrityError(f"{archive.index.key} refers to an archive that the manifest does not name") from exc
    return Parent(manifest.id, archive.base, archive.needs, known, order)
