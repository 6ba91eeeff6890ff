"""Reading archives: indexes, file lists and streams out of a store, and what it lacks of them out of others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from backupd.archive import (
    ArchiveReader,
    ChunkRef,
    Codec,
    Index,
    Member,
    SealedCodec,
    codec_of,
    read_file_list,
    unpack,
)
from backupd.crypto import Identities
from backupd.errors import BackupdError, IntegrityError, KeyMissing, ObjectNotFound
from backupd.ports import Store
from backupd.repository import layout
from backupd.repository.elsewhere import Elsewhere, PassedOver
from backupd.repository.manifest import Archive, ObjectRef
from backupd.repository.objects import read_checked, read_pieces
from backupd.security import Security

_PARALLEL_READS = 8


class Reading:
    """What a Repository does with archives. With `elsewhere`, what is damaged, missing or out of reach is read there.

    Whatever store it came from, nothing is passed on unless its hash is the one that the index, or the manifest, has.
    """

    def __init__(self, store: Store, threads: int, security: Security, elsewhere: Elsewhere | None) -> None:
        self.store = store
        self.threads = threads
        self.security = security
        self.elsewhere = elsewhere

    def check(self, refs: Iterable[ObjectRef]) -> None:
        """Look every object up in this store; IntegrityError for the first that is missing or not of its size."""
        with ThreadPoolExecutor(_PARALLEL_READS) as pool:
            for problem in pool.map(self.problem_with, refs):
                if problem is not None:
                    raise IntegrityError(f"{self.store.name}: {problem}")

    def check_reachable(self, refs: Iterable[ObjectRef]) -> None:
        """The same, but it will do if another store has it."""
        if self.elsewhere is None:
            self.check(refs)
            return
        for ref in refs:
            self.elsewhere.attempt(self.store, ref.key, partial(_require, ref=ref))
        self.elsewhere.tell()
        self.elsewhere.summary()  # nothing has been read of it yet

    def problem_with(self, ref: ObjectRef) -> str | None:
        """What the store says against an object: that it is missing, or not of its size. None if all is well."""
        try:
            size = self.store.stat(ref.key).size
        except ObjectNotFound:
            return f"{ref.key} is missing"
        return None if size == ref.size else f"{ref.key} has {size} bytes instead of {ref.size}"

    def readable(self, archive: Archive) -> bool:
        """Whether an archive can be read, as far as one can tell without trying: it is clear, or there is a key."""
        return self.security.has_identity or not layout.is_sealed(archive.index.key)

    def index(self, archive: Archive, *, cached: bool = False) -> Index:
        """The index of an archive, fetched and checked whole (some 16 MB for 1 TB) before a line of it is used.

        `cached`: a copy that this machine has kept of an encrypted one will do.
        """
        name = f"{self.store.name}: {archive.index.key}"
        sealed = layout.is_sealed(archive.index.key)
        if sealed and cached and self.security.indexes is not None:
            kept = self.security.indexes.get(archive.volume, archive.index.blake3)
            if kept is not None:
                return Index([kept], f"the kept copy of {name}")
        identities = self.security.identities() if sealed else None
        if self.elsewhere is None:
            data = read_checked(self.store, archive.index)
        else:
            data = self.elsewhere.attempt(
                self.store, archive.index.key, lambda store: read_checked(store, archive.index)
            )
            self.elsewhere.tell()
        return Index([identities.decrypt(data, name) if identities else data], name)

    def files(self, archive: Archive) -> Iterator[Member]:
        """The file list of an archive, streamed. Damage surfaces at the latest when it has been read to its end.

        Where other stores may help it is read twice: first to see whose is sound.
        """
        store = self._store_of(archive.files)
        name = f"{store.name}: {archive.files.key}"
        if not layout.is_sealed(archive.files.key):
            return read_file_list(read_pieces(store, archive.files), name)
        return _opened_files(store, archive.files, self.security.identities())

    def _store_of(self, ref: ObjectRef) -> Store:
        if self.elsewhere is None:
            return self.store
        store = self.elsewhere.attempt(self.store, ref.key, lambda store: _whole(store, ref))
        self.elsewhere.tell()
        return store

    def _codec(self, key: str) -> Codec:
        if not layout.is_sealed(key):
            return codec_of(key)
        return SealedCodec(codec_of(key.removesuffix(layout.SEALED)), unseal=self.security.identities().decrypt_frame)

    def reader(
        self, archive: Archive, keys: Sequence[str], fetched: Callable[[str, int, bytes], None] | None = None
    ) -> ArchiveReader:
        """A reader of chunks; `keys` are the data objects that the index's numbers refer to.

        `fetched` is told key, offset and content of every piece that was read of a data object, by several threads.
        """
        codecs: dict[str, Codec] = {key: self._codec(key) for key in keys}
        elsewhere = self.elsewhere

        def fetch(number: int, offset: int, size: int) -> bytes:
            if elsewhere is not None and elsewhere.is_away(self.store):
                raise PassedOver(f"store {self.store.name} did not answer before")
            stored = _read(self.store, keys[number], offset, size)
            if fetched is not None:
                fetched(keys[number], offset, stored)
            return stored

        def from_store(store: Store, ref: ChunkRef) -> bytes | memoryview:
            key = keys[ref.archive]
            frame = memoryview(_read(store, key, ref.offset, ref.stored_size))
            return unpack(codecs[key], ref, frame, f"{store.name}: {archive.volume}")

        def rescue(ref: ChunkRef, failure: BackupdError) -> bytes | memoryview:
            assert elsewhere is not None  # else nobody calls it
            return elsewhere.rescue(self.store, keys[ref.archive], failure, lambda store: from_store(store, ref))

        return ArchiveReader(
            fetch,
            lambda number: codecs[keys[number]],
            name=f"{self.store.name}: {archive.volume}",
            threads=self.threads,
            rescue=rescue if elsewhere is not None else None,
            aside=elsewhere.tell if elsewhere is not None else None,
        )

    def tar(self, archive: Archive) -> Iterator[bytes | memoryview]:
        """The whole tar stream of an archive, every chunk checked; IntegrityError if it is not of the right length."""
        index = self.index(archive)
        size = 0
        for chunk in self.reader(archive, index.archives).chunks(self.checked(index, archive)):
            size += len(chunk)
            yield chunk
        if size != archive.plain_size:
            raise IntegrityError(f"{self.store.name}: {archive.index.key} does not describe all of the stream")

    def checked(self, index: Index, archive: Archive) -> Iterator[ChunkRef]:
        """The index, as long as it keeps to the data objects and sizes of the manifest."""
        sizes = {ref.key: ref.size for ref in archive.needs}
        for ref in index:
            if ref.offset + ref.stored_size > sizes.get(index.archives[ref.archive], 0):
                raise IntegrityError(f"{self.store.name}: {archive.index.key} points outside of the archives it needs")
            yield ref


def _opened_files(store: Store, ref: ObjectRef, identities: Identities) -> Iterator[Member]:
    name = f"{store.name}: {ref.key}"
    try:
        yield from read_file_list(identities.stream(read_pieces(store, ref), name), name)
    except KeyMissing:
        _whole(store, ref)  # a damaged head, too, seems to be for other keys
        raise


def _read(store: Store, key: str, offset: int, size: int) -> bytes:
    try:
        return store.read(key, offset, size)
    except ObjectNotFound as exc:
        raise IntegrityError(f"{store.name}: {key} is missing") from exc


def _require(store: Store, ref: ObjectRef) -> None:
    try:
        size = store.stat(ref.key).size
    except ObjectNotFound as exc:
        raise IntegrityError(f"{store.name}: {ref.key} is missing") from exc
    if size != ref.size:
        raise IntegrityError(f"{store.name}: {ref.key} has {size} bytes instead of {ref.size}")


def _whole(store: Store, ref: ObjectRef) -> Store:
    for _ in read_pieces(store, ref):
        pass
    return store
