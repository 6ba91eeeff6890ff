"""A repository: snapshots and archives over one store."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from datetime import datetime
from typing import Self

import msgspec

from backupd.archive import ChunkerParameters
from backupd.errors import (
    BackupdError,
    IntegrityError,
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
from backupd.repository.elsewhere import Elsewhere
from backupd.repository.manifest import Encryption, Manifest, RepositoryConfig
from backupd.repository.manifests import Manifests
from backupd.repository.reading import Reading
from backupd.security import Security

_DOCUMENT_HINT = (
    "`backupd verify --repair` writes it again where the store was backed up to; else put it back from a copy"
)


class Repository(Reading):
    """The objects of docs/FORMAT.md over one store. `open` and `open_or_create` make one."""

    def __init__(
        self,
        store: Store,
        config: RepositoryConfig,
        threads: int,
        security: Security = Security(),  # noqa: B008
        elsewhere: Elsewhere | None = None,
    ) -> None:
        super().__init__(store, threads, security, elsewhere)
        self.config = config
        self._manifests = Manifests(store, config.id, security.trust)

    @classmethod
    def open(cls, store: Store, *, threads: int, security: Security = Security()) -> Repository:  # noqa: B008
        """The repository that a store holds; NoRepository if it holds none, IntegrityError if its document is lost."""
        data = _document(store)
        try:
            config = decode(data, RepositoryConfig, f"{store.name}: {layout.CONFIG}")
        except IntegrityError as exc:
            raise IntegrityError(str(exc), hint=_DOCUMENT_HINT) from exc
        return cls(store, config, threads, security)

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

    def resolve(
        self, name: str, holding: Collection[str] = (), unfit: Callable[[Manifest], bool] = lambda _: False
    ) -> Manifest:
        """The snapshot that an id, an unambiguous prefix or `latest` names: the newest that a plan has taken.

        `latest` is the newest that holds all volumes of `holding` and is not `unfit`, as far as there is one.
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
            wanted = [manifest for manifest in taken if all(map(manifest.archive, holding))] or taken[:1]
            return next((manifest for manifest in wanted if not unfit(manifest)), wanted[0])
        matches = sorted(known for known in self.snapshot_ids() if known.startswith(name.lower()))
        if not name or not matches:
            raise SnapshotNotFound(f"store {self.store.name} has no snapshot {name!r}")
        if len(matches) > 1:
            raise SnapshotNotFound(
                f"{len(matches)} snapshots begin with {name!r}: {', '.join(matches[:5])}",
                hint="give more digits",
            )
        return self.load(matches[0])

    def encrypting_like(self, manifest: Manifest) -> Self:
        """The same; what is written where nothing is configured is for those who can read that snapshot."""
        keys = manifest.encryption.recipients if manifest.encryption else []
        security = self.security.at_least_for(keys)
        return type(self)(self.store, self.config, self.threads, security, self.elsewhere)

    def helped_by(self, elsewhere: Elsewhere | None) -> Self:
        """The same; what its store can't give of an archive is read there. None: nowhere."""
        return type(self)(self.store, self.config, self.threads, self.security, elsewhere)

    @property
    def encryption(self) -> Encryption | None:
        """What the manifest of a new snapshot says of its encryption."""
        return Encryption(recipients=list(self.security.keys)) if self.security.recipients else None

    def commit(self, manifest: Manifest) -> Manifest:
        """Sign and write the manifest: from now on the snapshot exists. Returns it with its signer."""
        signer = self.security.signer
        self._manifests.encounter()
        key = signer() if signer else None
        self.copy(manifest, encode(manifest, key))
        return msgspec.structs.replace(manifest, signer=key.public if key else None)

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


def _document(store: Store) -> bytes:
    with suppress(ObjectNotFound):
        return store.read(layout.CONFIG)
    if not any(layout.snapshot_id(info.key) for info in store.list(layout.SNAPSHOTS)):
        raise NoRepository(f"store {store.name} holds no repository")
    try:
        return store.read(layout.CONFIG)  # another backupd may have made it meanwhile, and snapshots
    except ObjectNotFound as exc:
        text = f"{store.name}: {layout.CONFIG} is gone, and snapshots are there: is it mounted?"
        raise IntegrityError(text, hint=_DOCUMENT_HINT) from exc
