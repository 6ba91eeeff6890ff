"""Which snapshot a name means, and in which store: rather one that is not known to be damaged."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Self

from msgspec import Struct

from backupd import words
from backupd.errors import BackupdError, IntegrityError, SnapshotNotFound
from backupd.repository import Manifest, Repository, Standing, standing_of


class _Found(Struct, frozen=True):
    """Where a snapshot is, and how it stands there."""

    repository: Repository
    manifest: Manifest
    standing: Standing

    @classmethod
    def resolve(cls, repository: Repository, name: str, volumes: Collection[str], passed: list[Manifest]) -> Self:
        """What a name means there. What `latest` passes over, because it is known to be damaged, is added to `passed`.

        SnapshotNotFound, IntegrityError.
        """
        known: dict[str, Standing] = {}

        def unfit(manifest: Manifest) -> bool:
            known[manifest.id] = standing_of(repository, manifest.id)
            bad = cls(repository, manifest, known[manifest.id]).is_damaged(volumes)
            passed.extend([manifest] if bad else [])
            return bad

        manifest = repository.resolve(name, volumes, unfit)
        return cls(repository, manifest, known.get(manifest.id) or standing_of(repository, manifest.id))

    def is_damaged(self, volumes: Collection[str]) -> bool:
        """Whether any of these volumes is known to be damaged, or any at all if none is named."""
        return any(not volumes or volume in volumes for volume in self.standing.damaged)


def find(
    repositories: Iterable[Repository], name: str, volumes: Collection[str], warn: Callable[[str], None]
) -> tuple[Repository, Manifest]:
    """A snapshot and a repository that holds it: see `Site.find`."""
    search = _Search(name, volumes)
    for repository in repositories:
        if search.ends_with(repository):
            break
    best = max(search.required(), key=lambda one: (not one.is_damaged(volumes), one.manifest.time))
    for text in search.warnings(best):
        warn(text)
    return best.repository, best.manifest


class _Search:
    """Store after store."""

    def __init__(self, name: str, volumes: Collection[str]) -> None:
        self._name = name
        self._volumes = volumes
        self._found: list[_Found] = []
        self._passed: list[Manifest] = []
        self._missing: BackupdError | None = None
        self._refused: BackupdError | None = None

    def ends_with(self, repository: Repository) -> bool:
        """Look there; whether no other has to be asked."""
        try:
            one = _Found.resolve(repository, self._name, self._volumes, self._passed)
        except SnapshotNotFound as exc:
            self._missing = self._missing or exc
            return False
        except IntegrityError as exc:  # forged, exchanged or rolled back here: another store may be sound
            self._refused = self._refused or exc
            return False
        self._found.append(one)
        return self._name != "latest" and not one.is_damaged(self._volumes)

    def required(self) -> list[_Found]:
        """Where it is, at least one."""
        if not self._found:
            failure = self._refused or self._missing
            assert failure is not None  # every repository has been asked
            raise failure
        return self._found

    def warnings(self, best: _Found) -> list[str]:
        """What has to be said of it before anything is done with it."""
        said = [str(self._refused)] if self._refused is not None else []
        store, manifest = best.repository.store.name, best.manifest
        said += [
            f"snapshot {newer.short_id} of {words.moment(newer.time)} is known to be damaged and passed over:"
            f" this is {manifest.short_id} of {words.moment(manifest.time)}"
            for newer in {passed.id: passed for passed in self._passed if passed.time > manifest.time}.values()
        ]
        if best.is_damaged(self._volumes):
            assert best.standing.check is not None  # which is what says so
            said.append(
                f"snapshot {manifest.short_id} in store {store} is known to be damaged, by the check of"
                f" {words.moment(best.standing.check.time)}: {best.standing.problem}"
            )
        if self._missing is not None or best is not self._found[0]:
            why = "others lack it" if self._missing is not None else "others have no better copy"
            said.append(f"snapshot {manifest.short_id} is read from store {store}, {why}")
        return said
