"""The manifests of a repository: which there are, what they say, and whether they are believed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

from blake3 import blake3
from msgspec import Struct, field

from backupd.errors import BackupdError, IntegrityError, ObjectNotFound, RepositoryError, SnapshotNotFound
from backupd.ports import Store
from backupd.repository import layout
from backupd.repository.documents import decode, signature_of
from backupd.repository.manifest import Manifest
from backupd.trust import Candidate, Trust, missing_error

_PARALLEL_READS = 8


class Survey(Struct):
    """All snapshots, newest first; what is wrong with others; those that are gone, with their times."""

    manifests: list[Manifest] = field(default_factory=list)
    damaged: list[BackupdError] = field(default_factory=list)
    missing: list[tuple[datetime, BackupdError]] = field(default_factory=list)


class Manifests:
    """Over a store; `repository` is the id by which `trust` remembers. Without `trust`, every manifest is believed."""

    def __init__(self, store: Store, repository: str, trust: Trust | None) -> None:
        self._store = store
        self._repository = repository
        self._trust = trust

    def ids(self) -> set[str]:
        """The ids of all snapshots, by their keys alone."""
        keys = (layout.snapshot_id(info.key) for info in self._store.list(layout.SNAPSHOTS))
        return {key for key in keys if key is not None}

    def encounter(self) -> None:
        """Meet the repository if it is unknown: whom to believe depends on all that is there at first."""
        if self._trust is not None and not self._trust.knows(self._repository):
            self.survey()

    def load(self, snapshot_id: str) -> Manifest:
        """The manifest of a full id; SnapshotNotFound, or IntegrityError if it is damaged or not believed."""
        return self._believed(snapshot_id)[0]

    def stored(self, snapshot_id: str) -> bytes:
        """The manifest as it is stored, checked as by `load`."""
        return self._believed(snapshot_id)[1]

    def add(self, manifest: Manifest, data: bytes) -> None:
        """Write a manifest, and remember it."""
        self._store.put(layout.snapshot(manifest.id), data)
        if self._trust is not None:
            self._trust.committed(self._repository, _candidate(manifest, data))

    def survey(self) -> Survey:
        """Look at all of them."""
        before = self._trust.record(self._repository) if self._trust else None
        ids = sorted(self.ids())
        found = Survey()
        candidates: list[Candidate] = []
        with ThreadPoolExecutor(_PARALLEL_READS) as pool:
            for result in pool.map(self._read_or_damage, ids):
                if isinstance(result, tuple):
                    found.manifests.append(result[0])
                    candidates.append(_candidate(*result))
                elif result is not None:
                    found.damaged.append(result)
        if self._trust is not None:
            judgement = self._trust.judge(self._repository, candidates, before)
            found.damaged += map(self._here, judgement.refused.values())
            found.manifests = [one for one in found.manifests if one.id not in judgement.refused]
            for key, seen in judgement.missing.items():
                if key not in ids:  # or it is there, and damaged
                    found.missing.append((seen.time, missing_error(key, seen, self._store.name)))
        found.manifests.sort(key=lambda manifest: (manifest.time, manifest.id), reverse=True)
        return found

    def _believed(self, snapshot_id: str) -> tuple[Manifest, bytes]:
        self.encounter()
        manifest, data = self._read(snapshot_id)
        if self._trust is not None:
            for problem in self._trust.judge(self._repository, [_candidate(manifest, data)]).refused.values():
                raise self._here(problem)
        return manifest, data

    def _read(self, snapshot_id: str) -> tuple[Manifest, bytes]:
        key = layout.snapshot(snapshot_id)
        try:
            data = self._store.read(key)
        except ObjectNotFound as exc:
            raise SnapshotNotFound(f"store {self._store.name} has no snapshot {snapshot_id}") from exc
        if data == layout.WITHDRAWN:
            raise SnapshotNotFound(f"store {self._store.name}: snapshot {snapshot_id} was never finished")
        manifest = decode(data, Manifest, f"{self._store.name}: {key}")
        if manifest.id != snapshot_id:
            raise IntegrityError(f"{self._store.name}: {key} is the manifest of another snapshot, {manifest.id}")
        return manifest, data

    def _read_or_damage(self, snapshot_id: str) -> tuple[Manifest, bytes] | BackupdError | None:
        try:
            return self._read(snapshot_id)
        except SnapshotNotFound:  # pruned since it was listed
            return None
        except (IntegrityError, RepositoryError) as exc:
            return exc

    def _here(self, problem: BackupdError) -> BackupdError:
        return type(problem)(f"{self._store.name}: {problem}", hint=problem.hint)


def _candidate(manifest: Manifest, data: bytes) -> Candidate:
    return Candidate(manifest.id, blake3(data).hexdigest(), manifest.time, signature_of(data))
