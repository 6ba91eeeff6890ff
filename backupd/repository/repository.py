"""A repository: snapshots and archives over one store."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

from backupd.archive import (
    ArchiveReader,
    ChunkerParameters,
    ChunkRef,
    Codec,
    Index,
    Member,
    SealedCodec,
    codec_of,
    read_file_list,
)
from backupd.crypto import Identities
from backupd.errors import (
    BackupdError,
    IntegrityError,
    KeyMissing,
    NoRepository,
    ObjectExists,
    ObjectNotFound,
    RepositoryError,
    SnapshotNotFound,
    StoreError,
)
from backupd.ports import Store
from backupd.repository import layout
from backupd.repository.documents import decode, encode, opened
from backupd.repository.manifest import Archive, Encryption, Manifest, ObjectRef, RepositoryConfig
from backupd.repository.manifests import Manifests
from backupd.repository.objects import read_checked, read_pieces
from backupd.security import Security

_PARALLEL_READS = 8


class Repository:
    """The objects of docs/FORMAT.md over one store. `open` and `create` make one."""

    def __init__(
        self,
        store: Store,
        config: RepositoryConfig,
        threads: int,
        security: Security = Security(),  # noqa: B008
    ) -> None:
        self.store = store
        self.config = config
        self.threads = threads
        self.security = security
        self._manifests = Manifests(store, config.id, security.trust)

    @classmethod
    def open(cls, store: Store, *, threads: int, security: Security = Security()) -> Repository:  # noqa: B008
        """The repository that a store holds; RepositoryError if it holds none."""
        try:
            data = store.read(layout.CONFIG)
        except ObjectNotFound as exc:
            raise NoRepository(f"store {store.name} holds no repository") from exc
        return cls(store, decode(data, RepositoryConfig, f"{store.name}: {layout.CONFIG}"), threads, security)

    @classmethod
    def open_or_create(
        cls,
        store: Store,
        *,
        threads: int,
        now: datetime,
        new_id: Callable[[], str],
        chunker: ChunkerParameters,
        security: Security = Security(),  # noqa: B008
    ) -> Repository:
        """The repository of a store, made if the store is empty; one that holds other things is refused."""
        try:
            return cls.open(store, threads=threads, security=security)
        except NoRepository:
            pass
        keys = (info.key for info in store.list() if not info.key.startswith(layout.PROBES))
        stranger = next((key for key in keys if key != layout.CONFIG), None)
        # One that begins encrypted is refused as a whole by versions that could not read its snapshots.
        config = RepositoryConfig(format=2 if security.recipients else 1, id=new_id(), created=now, chunker=chunker)
        try:
            if stranger is None:
                store.put(layout.CONFIG, encode(config))
                return cls(store, config, threads, security)
        except ObjectExists:
            return cls.open(store, threads=threads, security=security)  # another backupd was faster
        try:
            return cls.open(store, threads=threads, security=security)  # … and has stored something already
        except RepositoryError as exc:
            raise RepositoryError(
                f"store {store.name} is not a repository, and not empty: it holds {stranger}",
                hint="give backupd a directory or a bucket prefix of its own",
            ) from exc

    def require_still_there(self) -> None:
        """StoreError if the store does not hold this repository any more."""
        try:
            found = Repository.open(self.store, threads=1).config.id
        except NoRepository:
            found = None
        if found != self.config.id:
            raise StoreError(f"store {self.store.name} is not the one that was opened: was it unmounted?")

    def snapshot_ids(self) -> set[str]:
        """The ids of all snapshots, by their keys alone."""
        return self._manifests.ids()

    def load(self, snapshot_id: str) -> Manifest:
        """The manifest of a full id; IntegrityError if it is damaged, or not believed (Trust)."""
        return self._manifests.load(snapshot_id)

    def stored(self, snapshot_id: str) -> bytes:
        """The manifest as it is stored, checked as by `load`."""
        return self._manifests.stored(snapshot_id)

    def snapshots(self) -> tuple[list[Manifest], list[BackupdError]]:
        """All snapshots, newest first, and what is wrong with others.

        That is: a manifest that can't be read, one that is not believed, one that was there and is gone.
        """
        found = self._manifests.survey()
        return found.manifests, [*found.damaged, *(problem for _, problem in found.missing)]

    def resolve(self, name: str, holding: Collection[str] = ()) -> Manifest:
        """The snapshot that an id, an unambiguous prefix or `latest` names: the newest that a plan has taken.

        `latest` is the newest that holds all volumes of `holding`, if there is one.
        """
        if name == "latest":
            found = self._manifests.survey()
            taken = [manifest for manifest in found.manifests if manifest.reason == "backup"]
            for time, problem in found.missing:
                if not taken or time > taken[0].time:
                    raise problem
            if not taken:
                if found.damaged:
                    raise found.damaged[0]
                raise SnapshotNotFound(
                    f"store {self.store.name} has no snapshot yet", hint="`backupd backup` takes one"
                )
            return next((manifest for manifest in taken if all(map(manifest.archive, holding))), taken[0])
        matches = sorted(known for known in self.snapshot_ids() if known.startswith(name.lower()))
        if not name or not matches:
            raise SnapshotNotFound(f"store {self.store.name} has no snapshot {name!r}")
        if len(matches) > 1:
            raise SnapshotNotFound(
                f"{len(matches)} snapshots begin with {name!r}: {', '.join(matches[:5])}",
                hint="give more digits",
            )
        return self.load(matches[0])

    def check(self, refs: Iterable[ObjectRef]) -> None:
        """Look every object up; IntegrityError for the first that is missing or not of its size."""
        with ThreadPoolExecutor(_PARALLEL_READS) as pool:
            for problem in pool.map(self.problem_with, refs):
                if problem is not None:
                    raise IntegrityError(f"{self.store.name}: {problem}")

    def problem_with(self, ref: ObjectRef) -> str | None:
        """What the store says against an object: that it is missing, or not of its size. None if all is well."""
        try:
            size = self.store.stat(ref.key).size
        except ObjectNotFound:
            return f"{ref.key} is missing"
        return None if size == ref.size else f"{ref.key} has {size} bytes instead of {ref.size}"

    def encrypting_like(self, manifest: Manifest) -> Repository:
        """The same; what is written where nothing is configured is for those who can read that snapshot."""
        keys = manifest.encryption.recipients if manifest.encryption else []
        return Repository(self.store, self.config, self.threads, self.security.at_least_for(keys))

    @property
    def encryption(self) -> Encryption | None:
        """What the manifest of a new snapshot says of its encryption."""
        return Encryption(recipients=list(self.security.keys)) if self.security.recipients else None

    def commit(self, manifest: Manifest) -> None:
        """Sign and write the manifest: from now on the snapshot exists."""
        signer = self.security.signer
        self._manifests.encounter()
        self.copy(manifest, encode(manifest, signer() if signer else None))

    def copy(self, manifest: Manifest, data: bytes) -> None:
        """Write a manifest that has been encoded, signed and believed before: from now on the snapshot exists."""
        self._manifests.add(manifest, data)

    def forget(self, snapshots: Iterable[str]) -> None:
        """These are about to be deleted on purpose: they will not be missed. Call it before the first of them goes."""
        if self.security.trust is not None:
            self.security.trust.removed(self.config.id, snapshots)

    def opened(self, manifest: Manifest) -> Manifest:
        """The manifest with its private part; KeyMissing if there is no key for it."""
        return opened(manifest, self.security.identities()) if manifest.hidden else manifest

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
        data = read_checked(self.store, archive.index)
        return Index([identities.decrypt(data, name) if identities else data], name)

    def files(self, archive: Archive) -> Iterator[Member]:
        """The file list of an archive, streamed. Damage surfaces at the latest when it has been read to its end."""
        name = f"{self.store.name}: {archive.files.key}"
        if not layout.is_sealed(archive.files.key):
            return read_file_list(read_pieces(self.store, archive.files), name)
        return self._opened_files(archive, self.security.identities(), name)

    def _opened_files(self, archive: Archive, identities: Identities, name: str) -> Iterator[Member]:
        try:
            yield from read_file_list(identities.stream(read_pieces(self.store, archive.files), name), name)
        except KeyMissing:
            for _ in read_pieces(self.store, archive.files):  # a damaged head, too, seems to be for other keys
                pass
            raise

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

        def fetch(number: int, offset: int, size: int) -> bytes:
            try:
                stored = self.store.read(keys[number], offset, size)
            except ObjectNotFound as exc:
                raise IntegrityError(f"{self.store.name}: {keys[number]} is missing") from exc
            if fetched is not None:
                fetched(keys[number], offset, stored)
            return stored

        return ArchiveReader(
            fetch,
            lambda number: codecs[keys[number]],
            name=f"{self.store.name}: {archive.volume}",
            threads=self.threads,
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
