"""Repair: what is damaged or missing in one store is put there again, from a store that holds it whole.

Objects are never overwritten: the new copy is written out of sight, its hash compared, then the damaged object deleted
and the new one published under the key that is free now. See docs/decisions/0072-how-a-store-is-mended.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

from blake3 import blake3
from msgspec import Struct, field

from backupd.errors import BackupdError, IntegrityError, ObjectNotFound, RepositoryError, StoreDenied, StoreError
from backupd.lease import Lease, commit
from backupd.ports import Store
from backupd.repository import HashedWriter, Manifest, ObjectRef, Repository, layout, read_pieces
from backupd.runtime import Runtime


class Repaired(Struct, frozen=True):
    """Keys that were replaced, with the store that the copy is from; those that are as they were, and why.

    `backupd.json` is its own store's: this machine remembers what it said.

    `snapshots` are the ids of those of which nothing is damaged any more, as far as hashes tell.
    """

    mended: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    snapshots: frozenset[str] = frozenset()


class _NoGoodCopy(Exception):  # noqa: N818
    """A source does not have it whole."""


class Repair:
    """Of one store, the target. Nobody else writes or prunes it meanwhile; sources are only read."""

    def __init__(self, target: Repository, sources: Sequence[Repository], runtime: Runtime) -> None:
        self._target = target
        self._sources = sources
        self._runtime = runtime
        self._mended: dict[str, str] = {}
        self._left: dict[str, str] = {}
        self._sound: set[str] = set()

    def run(self, suspects: Iterable[Manifest], only: str | None = None) -> Repaired:
        """Mend all objects of these snapshots, and manifests that can't be read or are missed, `only` one if given.

        LockedError while another backupd writes or prunes. Killed at any moment it leaves every object as it was, or
        whole, but for one at most: that one was damaged, is missing now, and is whole in the store it was read from.
        """
        with self._runtime.leases(self._target.store).exclusive("repair") as lease:
            listed = self._target.snapshot_ids()
            whole = set()
            for manifest in suspects:
                if manifest.id in listed and self._objects(manifest, lease):
                    whole.add(manifest.id)
            for id_ in sorted(self._lost(only)):
                if self._manifest(id_, lease):
                    whole.add(id_)
        return Repaired(self._mended, self._left, frozenset(whole))

    def _objects(self, manifest: Manifest, lease: Lease) -> bool:
        """Whether all that the snapshot needs is whole afterwards."""
        refs = {ref.key: ref for archive in manifest.archives for ref in archive.objects}
        sound = [self._object(ref, lease) for ref in refs.values()]  # each of them, also behind one that is not
        return all(sound)

    def _object(self, ref: ObjectRef, lease: Lease) -> bool:
        if ref.key in self._sound or ref.key in self._mended:
            return True
        if ref.key in self._left:
            return False
        self._runtime.progress.begin(f"looking at {ref.key}", None)
        try:
            if _is_whole(self._target, ref):
                self._sound.add(ref.key)
                return True
        finally:
            self._runtime.progress.end()
        silent: list[BackupdError] = []
        for source in self._sources:
            try:
                self._replace(ref, source, lease)
            except _NoGoodCopy as exc:
                silent += _silence(exc.__cause__)
                continue
            except StoreDenied as exc:
                self._left[ref.key] = f"the store refuses to replace it: {exc}"
                return False
            self._note(ref.key, source)
            return True
        self._left[ref.key] = _nowhere(silent)
        return False

    def _replace(self, ref: ObjectRef, source: Repository, lease: Lease) -> None:
        target = self._target.store
        self._runtime.progress.begin(f"{ref.key} → {target.name}", ref.size)
        try:
            with HashedWriter(target, ref.key, ref.size) as writer:
                for piece in _pieces(source, ref):
                    writer.write(piece)
                    self._runtime.progress.advance(len(piece))
                # The copy is whole, out of sight. From here on it is a matter of two requests.
                lease.confirm()
                make_room(target, ref.key)
                writer.commit()
        finally:
            self._runtime.progress.end()
        if not _is_whole(self._target, ref):
            raise IntegrityError(
                f"{target.name}: {ref.key} was written anew and reads differently: is the disk failing?"
            )

    def _lost(self, only: str | None) -> set[str]:
        """Ids of snapshots whose manifest is damaged or missed here."""
        listed = self._target.snapshot_ids()
        lost = {id_ for id_ in listed if self._is_unreadable(id_)}
        trust = self._target.security.trust
        if trust is not None:
            lost |= trust.record(self._target.config.id).snapshots.keys() - listed
        return {id_ for id_ in lost if only is None or id_.startswith(only.lower())}

    def _is_unreadable(self, id_: str) -> bool:
        try:
            self._target.load(id_)
        except IntegrityError:
            return True
        except RepositoryError:  # of a later version, or withdrawn: not damaged
            return False
        return False

    def _manifest(self, id_: str, lease: Lease) -> bool:
        """Put a manifest there again, after all that it needs."""
        key = layout.snapshot(id_)
        silent: list[BackupdError] = []
        for source in self._sources:
            try:
                manifest, data = source.load(id_), source.stored(id_)
            except BackupdError as exc:
                silent += _silence(exc)
                continue
            if self._is_another(id_, data):
                continue
            if not self._objects(manifest, lease):
                self._left[key] = "not all that it needs is there"
                return False
            lease.confirm()
            try:
                make_room(self._target.store, key)
            except StoreDenied as exc:
                self._left[key] = f"the store refuses to replace it: {exc}"
                return False
            commit(self._target, manifest, lease, data)
            self._note(key, source)
            return True
        self._left[key] = _nowhere(silent)
        return False

    def _is_another(self, id_: str, data: bytes) -> bool:
        """Whether this machine has seen another manifest of that id here."""
        trust = self._target.security.trust
        if trust is None:
            return False
        seen = trust.record(self._target.config.id).snapshots.get(id_)
        return seen is not None and seen.digest != blake3(data).hexdigest()

    def _note(self, key: str, source: Repository) -> None:
        self._mended[key] = source.store.name
        self._runtime.progress.note(f"{self._target.store.name}: {key} is mended, from store {source.store.name}")


def make_room(store: Store, key: str) -> None:
    """Delete what is there. Where deleting is denied, what is missing can be put there all the same."""
    with suppress(ObjectNotFound):
        store.stat(key)
        store.delete(key)


def _silence(failure: BaseException | None) -> list[BackupdError]:
    """What a source did not answer with; nothing if it said that it has no such thing, or a damaged one."""
    return [failure] if isinstance(failure, StoreError) and not isinstance(failure, ObjectNotFound) else []


def _nowhere(silent: Sequence[BackupdError]) -> str:
    if silent:
        return f"not to be had from elsewhere now: {'; '.join(map(str, silent))}"
    return "no other store holds it whole"


def _pieces(source: Repository, ref: ObjectRef) -> Iterator[bytes]:
    """An object of a source; _NoGoodCopy, at its end at the latest, if it is not the one."""
    pieces = read_pieces(source.store, ref)
    while True:
        try:
            piece = next(pieces, None)
        except (BackupdError, ObjectNotFound) as exc:
            raise _NoGoodCopy from exc
        if piece is None:
            return
        yield piece


def _is_whole(repository: Repository, ref: ObjectRef) -> bool:
    if repository.problem_with(ref):
        return False
    try:
        for _ in read_pieces(repository.store, ref):
            pass
    except IntegrityError:
        return False
    return True
