"""Records about snapshots: objects beside them in the store, or in the state directory where the store takes none."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from msgspec import Struct

from backupd.errors import IntegrityError, SourceError, StoreDenied, StoreFull
from backupd.ports import Store
from backupd.repository.checkrecord import CheckRecord
from backupd.repository.documents import decode, encode, signature_of
from backupd.repository.drillrecord import DrillRecord
from backupd.repository.repository import Repository
from backupd.security import Security
from backupd.statefile import write_private

_T = TypeVar("_T", DrillRecord, CheckRecord)


class RecordDoubted(IntegrityError):  # noqa: N818  (reads as what it is)
    """A record was not made by anybody who is believed."""


class Records(Struct, frozen=True):
    """Of the repository with that id, which need not be open.

    `directory` is where this machine keeps what stores do not take, by repository; None: nowhere.
    """

    store: Store
    repository: str
    security: Security
    directory: Path | None

    @classmethod
    def of(cls, repository: Repository, directory: Path | None) -> Records:
        """Those of one that is open."""
        return cls(repository.store, repository.config.id, repository.security, directory)

    def keep(self, key: str, record: DrillRecord | CheckRecord, *, private: bool = False) -> str | None:
        """Store a signed record; returns why it is kept on this machine alone, if the store refused it.

        `private` ones stay here. StoreUnavailable passes on, and so does a refusal if there is no other place.
        """
        signer = self.security.signer
        data = encode(record, signer() if signer else None)
        local = self._local(key)
        if private and local is not None:
            write_private(local, data)
            return "the snapshot is encrypted, and it tells of what is in it"
        try:
            self.store.put(key, data)
        except (StoreDenied, StoreFull) as exc:
            if local is None:
                raise
            write_private(local, data)
            return str(exc)
        return None

    def keys(self, prefix: str) -> list[str]:
        """All that begin so, in order."""
        return sorted({*(info.key for info in self.store.list(prefix)), *self.local_keys(prefix)})

    def local_keys(self, prefix: str) -> list[str]:
        """Those that are kept on this machine."""
        root = self._local("")
        if root is None:
            return []
        found = (path.relative_to(root).as_posix() for path in root.glob(f"{prefix.partition('/')[0]}/*/*.json"))
        return sorted(key for key in found if key.startswith(prefix))

    def load(self, key: str, kind: type[_T]) -> _T:
        """A record; IntegrityError if it is damaged, RecordDoubted if it is not believed, ObjectNotFound."""
        local = self._local(key)
        if local is not None and local.exists():
            try:
                return decode(local.read_bytes(), kind, str(local))
            except OSError as exc:
                raise SourceError(f"cannot read {local}: {exc.strerror}") from exc
        name = f"{self.store.name}: {key}"
        data = self.store.read(key)
        record = decode(data, kind, name)
        trust = self.security.trust
        if trust is not None and (doubt := trust.doubt(self.repository, signature_of(data))):
            raise RecordDoubted(f"{name} is ignored: {doubt}")
        return record

    def drop(self, key: str) -> None:
        """Remove what is kept on this machine of it."""
        local = self._local(key)
        if local is not None:
            local.unlink(missing_ok=True)

    def _local(self, key: str) -> Path | None:
        return None if self.directory is None else self.directory / self.repository / key
