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
    codec_of,
    read_file_list,
)
from backupd.errors import (
    BackupdError,
    IntegrityError,
    NoRepository,
    ObjectExists,
    ObjectNotFound,
    RepositoryError,
    SnapshotNotFound,
)
from backupd.ports import Store
from backupd.repository import layout
from backupd.repository.manifest import Archive, Manifest, ObjectRef, RepositoryConfig, decode, encode
from backupd.repository.objects import read_checked, read_pieces

_PARALLEL_READS = 8


class Repository:
    """The objects of docs/FORMAT.md over one store. `open` and `create` make one."""

    def __init__(self, store: Store, config: RepositoryConfig, threads: int) -> None:
        self.store = store
        self.config = config
        self.threads = threads

    @classmethod
    def open(cls, store: Store, *, threads: int) -> Repository:
        """The repository that a store holds; RepositoryError if it holds none."""
        try:
            data = store.read(layout.CONFIG)
        except ObjectNotFound as exc:
            raise NoRepository(f"store {store.name} holds no repository") from exc
        return cls(store, decode(data, RepositoryConfig, f"{store.name}: {layout.CONFIG}"), threads)

    @classmethod
    def open_or_create(
        cls, store: Store, *, threads: int, now: datetime, new_id: Callable[[], str], chunker: ChunkerParameters
    ) -> Repository:
        """The repository of a store, made if the store is empty; one that holds other things is refused."""
        try:
            return cls.open(store, threads=threads)
        except NoRepository:
            pass
        keys = (info.key for info in store.list() if not info.key.startswith("probe/"))
        stranger = next((key for key in keys if key != layout.CONFIG), None)
        config = RepositoryConfig(id=new_id(), created=now, chunker=chunker)
        try:
            if stranger is None:
                store.put(layout.CONFIG, encode(config))
                return cls(store, config, threads)
        except ObjectExists:
            return cls.open(store, threads=threads)  # another backupd was faster
        try:
            return cls.open(store, threads=threads)  # … and has stored something already
        except RepositoryError as exc:
            raise RepositoryError(
                f"store {store.name} is not a repository, and not empty: it holds {stranger}",
                hint="give backupd a directory or a bucket prefix of its own",
            ) from exc

    def snapshot_ids(self) -> set[str]:
        """The ids of all snapshots, by their keys alone."""
        keys = (layout.snapshot_id(info.key) for info in self.store.list(layout.SNAPSHOTS))
        return {key for key in keys if key is not None}

    def load(self, snapshot_id: str) -> Manifest:
        """The manifest of a full id."""
        key = layout.snapshot(snapshot_id)
        try:
            manifest = decode(self.store.read(key), Manifest, f"{self.store.name}: {key}")
        except ObjectNotFound as exc:
            raise SnapshotNotFound(f"store {self.store.name} has no snapshot {snapshot_id}") from exc
        if manifest.id != snapshot_id:
            raise IntegrityError(f"{self.store.name}: {key} is the manifest of another snapshot, {manifest.id}")
        return manifest

    def snapshots(self) -> tuple[list[Manifest], list[BackupdError]]:
        """All snapshots, newest first, and what is wrong with those whose manifest can't be read."""
        ids = sorted(self.snapshot_ids())
        manifests: list[Manifest] = []
        damaged: list[BackupdError] = []
        with ThreadPoolExecutor(_PARALLEL_READS) as pool:
            for result in pool.map(self._load_or_damage, ids):
                if isinstance(result, Manifest):
                    manifests.append(result)
                elif result is not None:
                    damaged.append(result)
        return sorted(manifests, key=lambda manifest: (manifest.time, manifest.id), reverse=True), damaged

    def _load_or_damage(self, snapshot_id: str) -> Manifest | BackupdError | None:
        try:
            return self.load(snapshot_id)
        except SnapshotNotFound:  # pruned since it was listed
            return None
        except (IntegrityError, RepositoryError) as exc:
            return exc

    def resolve(self, name: str, holding: Collection[str] = ()) -> Manifest:
        """The snapshot that an id, an unambiguous prefix or `latest` names: the newest that a plan has taken.

        `latest` is the newest that holds all volumes of `holding`, if there is one.
        """
        if name == "latest":
            manifests, damaged = self.snapshots()
            taken = [manifest for manifest in manifests if manifest.reason == "backup"]
            if not taken:
                if damaged:
                    raise damaged[0]
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

    def commit(self, manifest: Manifest) -> None:
        """Write the manifest: from now on the snapshot exists."""
        self.store.put(layout.snapshot(manifest.id), encode(manifest))

    def index(self, archive: Archive) -> Index:
        """The index of an archive, fetched and checked whole (some 16 MB for 1 TB) before a line of it is used."""
        return Index([read_checked(self.store, archive.index)], f"{self.store.name}: {archive.index.key}")

    def files(self, archive: Archive) -> Iterator[Member]:
        """The file list of an archive, streamed. Damage surfaces at the latest when it has been read to its end."""
        return read_file_list(read_pieces(self.store, archive.files), f"{self.store.name}: {archive.files.key}")

    def reader(
        self, archive: Archive, keys: Sequence[str], fetched: Callable[[str, int, bytes], None] | None = None
    ) -> ArchiveReader:
        """A reader of chunks; `keys` are the data objects that the index's numbers refer to.

        `fetched` is told key, offset and content of every piece that was read of a data object, by several threads.
        """
        codecs: dict[str, Codec] = {key: codec_of(key) for key in keys}

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
