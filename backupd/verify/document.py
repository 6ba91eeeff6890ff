"""A repository's own document, `backupd.json`, written again where it is damaged or gone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress

from blake3 import blake3

from backupd.archive import ChunkerParameters
from backupd.errors import IntegrityError, ObjectNotFound, RepositoryError
from backupd.known import KnownRepositories
from backupd.ports import Store
from backupd.repository import Manifest, ObjectRef, Repository, RepositoryConfig, layout, repositories_named
from backupd.repository.documents import decode, encode
from backupd.runtime import Runtime
from backupd.verify.repair import make_room


def mend_document(store: Store, others: Sequence[Repository], runtime: Runtime) -> None:
    """Write it by what this machine remembers of the store; chunker parameters are those of the first of the others.

    IntegrityError, saying why, unless the store holds a snapshot that was seen in that repository, with data, and no
    believed record of another one: a directory that nothing is mounted on, and that a manifest got into when it was
    unmounted, or a store in the place of another, is not made into it.
    """
    with runtime.leases(store).exclusive("repair") as lease:
        with suppress(IntegrityError):
            Repository.open(store, threads=1)  # somebody else has mended it meanwhile
            return
        config = _remembered(store, others, runtime)
        lease.confirm()
        make_room(store, layout.CONFIG)
        store.put(layout.CONFIG, encode(config))


def _remembered(store: Store, others: Sequence[Repository], runtime: Runtime) -> RepositoryConfig:
    id_ = KnownRepositories(runtime.state).of(store.name)
    if id_ is None:
        raise IntegrityError("this machine has never backed up there, and does not know the repository's id")
    if others_named := repositories_named(store, id_, runtime.security) - {id_}:
        named = ", ".join(sorted(others_named))
        raise IntegrityError(f"the store held the repository {id_}, and its records are about {named}: is it another?")
    seen = list(_seen(store, id_, runtime))
    if not _some_data_are_there(store, seen):
        raise IntegrityError(
            f"the store held the repository {id_}, and no data of a snapshot of it that was seen before"
        )
    return RepositoryConfig(
        format=min(manifest.format for manifest in seen),  # refused as a whole where all of it is encrypted
        id=id_,
        created=min(manifest.time for manifest in seen),
        chunker=others[0].config.chunker if others else ChunkerParameters(),
    )


def _seen(store: Store, id_: str, runtime: Runtime) -> Iterator[Manifest]:
    """What is there, byte by byte as this machine has seen it in the repository; not what a later version wrote."""
    trust = runtime.security.trust
    known = trust.record(id_).snapshots if trust else {}
    for info in store.list(layout.SNAPSHOTS):
        seen = known.get(layout.snapshot_id(info.key) or "")
        if seen is not None and blake3(data := store.read(info.key)).hexdigest() == seen.digest:
            with suppress(RepositoryError, IntegrityError):
                yield decode(data, Manifest, info.key)


def _some_data_are_there(store: Store, manifests: Sequence[Manifest]) -> bool:
    """Whether any object of a snapshot is there; those of the newest are asked for first, and each once."""
    ordered = sorted(manifests, key=lambda manifest: manifest.time, reverse=True)
    objects = dict.fromkeys(ref for manifest in ordered for archive in manifest.archives for ref in archive.objects)
    return any(_is_there(store, ref) for ref in objects)


def _is_there(store: Store, ref: ObjectRef) -> bool:
    try:
        return store.stat(ref.key).size == ref.size
    except ObjectNotFound:
        return False
