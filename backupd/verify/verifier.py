"""Checks archives: whether a store still holds what they say, by looking or by reading all of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from random import Random
from threading import Lock

from blake3 import blake3
from msgspec import Struct, field

from backupd.archive import ChunkRef, Member, TarWalker
from backupd.errors import IntegrityError, KeyMissing
from backupd.ports import Progress
from backupd.repository import Archive, CheckKind, Manifest, ObjectRef, Repository, read_pieces


class Finding(Struct, frozen=True):
    """What verification found of one archive: `problem` None is a clean bill. `read` are bytes: see VolumeCheck."""

    snapshot: str
    volume: str
    read: int = 0
    problem: str | None = None
    kind: CheckKind = "sizes"


class _ObjectHashes:
    """Hashes objects along with the pieces that are read of them, as long as these come without gaps. Thread-safe.

    Memory: pieces that were fetched and whose chunks have not passed yet.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._waiting: dict[tuple[str, int], bytes] = {}
        self._states: dict[str, tuple[blake3, int]] = {}

    def fetched(self, key: str, offset: int, piece: bytes) -> None:
        """A piece was read, maybe ahead of others."""
        with self._lock:
            self._waiting[key, offset] = piece

    def passed(self, key: str, offset: int) -> None:
        """The chunk at `offset` comes out: all pieces up to there have been fetched."""
        with self._lock:
            ready = sorted(at for held, at in self._waiting if held == key and at <= offset)
            for at in ready:
                piece = self._waiting.pop((key, at))
                state, position = self._states.get(key) or (blake3(), 0)
                if at == position:
                    state.update(piece)
                    self._states[key] = state, position + len(piece)

    def position(self, key: str) -> int:
        """How far the object is hashed."""
        return self._states[key][1] if key in self._states else 0

    def digest(self, key: str) -> str:
        """The hash of what was hashed."""
        return self._states[key][0].hexdigest()


class Verifier(Struct):
    """Checks archives of one repository, oldest first; a chunk that several archives share is read once.

    `fraction` of the chunks is read: 0 looks at sizes and reads indexes and file lists only, 1 reads everything,
    follows the tar streams and compares the hashes of whole objects, what is between reads chunks drawn by `random`.
    With `keyless`, data objects for which there is no key are hashed as they are, instead of a KeyMissing.
    Memory: some 150 bytes a chunk read.
    """

    repository: Repository
    progress: Progress
    fraction: float
    random: Random
    keyless: bool = False
    _seen: set[tuple[str, int]] = field(default_factory=set)
    _looked_up: dict[str, str | None] = field(default_factory=dict)
    _whole: dict[str, bool] = field(default_factory=dict)
    _hashes: _ObjectHashes = field(default_factory=_ObjectHashes)

    def verify(self, manifests: Iterable[Manifest]) -> Iterator[Finding]:
        """A finding for every archive. Damage is a finding; a store that can't be asked is an error."""
        for manifest in sorted(manifests, key=lambda manifest: manifest.time):
            for archive in manifest.archives:
                self.progress.begin(f"{manifest.short_id} {archive.volume}", archive.plain_size)
                try:
                    read, kind = self._archive(archive)
                except IntegrityError as exc:
                    yield Finding(manifest.id, archive.volume, problem=str(exc), kind=self._kind(archive))
                else:
                    yield Finding(manifest.id, archive.volume, read, kind=kind)
                finally:
                    self.progress.end()

    def _kind(self, archive: Archive) -> CheckKind:
        if self.fraction <= 0:
            return "sizes"
        return "data" if self.repository.readable(archive) else "objects"

    def _archive(self, archive: Archive) -> tuple[int, CheckKind]:
        for ref in archive.objects:
            self._check_size(ref)
        lenient = self.keyless or self.fraction <= 0
        if lenient and not self.repository.readable(archive):
            return self._from_outside(archive)
        try:
            return self._from_inside(archive), self._kind(archive)
        except KeyMissing:
            if not lenient:
                raise
            self.repository.security.identities()  # KeyMissing again unless it is a key, but for other snapshots
            return self._from_outside(archive)

    def _from_inside(self, archive: Archive) -> int:
        index = self.repository.index(archive)
        refs = list(self.repository.checked(index, archive))
        if sum(ref.plain_size for ref in refs) != archive.plain_size or len(refs) != archive.chunks:
            raise IntegrityError(f"{archive.index.key} does not describe all of the stream")
        listed = sum(1 for _ in self.repository.files(archive))
        if listed != archive.members:
            raise IntegrityError(f"{archive.files.key} lists {listed} of {archive.members} members")
        read = self._chunks(archive, refs, index.archives)
        if self.fraction >= 1:
            for ref in archive.needs:
                self._check_hash(ref)
        return read

    def _from_outside(self, archive: Archive) -> tuple[int, CheckKind]:
        """Without the key: objects are, byte by byte, what was written; what they say stays unread."""
        for ref in (archive.index, archive.files):
            self._check_hash(ref)
        if self.fraction <= 0:
            return 0, "sizes"
        read = 0
        for ref in archive.needs:
            if self.fraction >= 1 or self.random.random() < self.fraction:
                read += 0 if ref.key in self._whole else ref.size
                self._check_hash(ref)
        return read, "objects"

    def _chunks(self, archive: Archive, refs: list[ChunkRef], keys: list[str]) -> int:
        unread = [ref for ref in refs if (keys[ref.archive], ref.offset) not in self._seen]
        if self.fraction >= 1 and len(unread) == len(refs):
            return self._walk(archive, refs, keys)
        chosen = [ref for ref in unread if self.fraction >= 1 or self.random.random() < self.fraction]
        return sum(len(chunk) for chunk in self._read(archive, chosen, keys))

    def _check_size(self, ref: ObjectRef) -> None:
        if ref.key not in self._looked_up:
            self._looked_up[ref.key] = self.repository.problem_with(ref)
        if problem := self._looked_up[ref.key]:
            raise IntegrityError(problem)

    def _check_hash(self, ref: ObjectRef) -> None:
        """What no chunk covers, or was read out of order, is read for it: the rest of archives that were pruned."""
        if ref.key not in self._whole:
            self._whole[ref.key] = self._is_whole(ref)
        if not self._whole[ref.key]:
            raise IntegrityError(f"{ref.key} is not what was written")

    def _is_whole(self, ref: ObjectRef) -> bool:
        if self._hashes.position(ref.key) == ref.size:
            return self._hashes.digest(ref.key) == ref.blake3
        try:
            return all(True for _ in read_pieces(self.repository.store, ref))
        except IntegrityError:
            return False

    def _read(self, archive: Archive, refs: list[ChunkRef], keys: list[str]) -> Iterator[bytes | memoryview]:
        reader = self.repository.reader(archive, keys, self._hashes.fetched if self.fraction >= 1 else None)
        for ref, chunk in zip(refs, reader.chunks(refs), strict=True):
            self._seen.add((keys[ref.archive], ref.offset))
            self._hashes.passed(keys[ref.archive], ref.offset)
            self.progress.advance(len(chunk))
            yield chunk

    def _walk(self, archive: Archive, refs: list[ChunkRef], keys: list[str]) -> int:
        """Read the whole stream and compare its members with the file list."""
        walker = TarWalker()
        listed = self.repository.files(archive)
        for chunk in self._read(archive, refs, keys):
            for member in walker.feed(memoryview(chunk)):
                if _facts(member) != _facts(next(listed, None)):
                    raise IntegrityError(f"{archive.files.key} does not list {member.path} as the stream has it")
        walker.finish()
        return archive.plain_size


def _facts(member: Member | None) -> tuple[object, ...]:
    return () if member is None else tuple(getattr(member, name) for name in Member.__struct_fields__)
