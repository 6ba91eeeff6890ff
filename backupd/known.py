"""Which repository each store held when it was last written, to notice a store that is not the one it was."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from backupd.errors import SourceError, StoreError
from backupd.malformed import MALFORMED


class KnownRepositories:
    """`stores.json` in the state directory: repository ids by store name. Rebuilt when it is lost."""

    def __init__(self, state: Path) -> None:
        self._path = state / "stores.json"

    def check(self, store: str, repository: str | None) -> None:
        """StoreError if the store held another repository, or now holds none; `repository` is what it holds."""
        known = self._read().get(store)
        if known is not None and known != repository:
            found = "now holds none" if repository is None else f"now holds {repository}"
            raise StoreError(
                f"store {store} held the repository {known}, and {found}: is it mounted?",
                hint=f"if that is as it should be, remove {store!r} from {self._path}",
            )

    def remember(self, store: str, repository: str) -> None:
        """The store holds that repository."""
        known = dict(self._read())
        if known.get(store) != repository:
            known[store] = repository
            try:
                self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                new = self._path.with_name(f"{self._path.name}.{os.getpid()}")
                new.write_bytes(msgspec.json.encode(known))
                new.replace(self._path)
            except OSError as exc:
                raise SourceError(f"cannot write {self._path}: {exc.strerror}") from exc

    def _read(self) -> Mapping[str, str]:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=dict[str, str])
        except (FileNotFoundError, *MALFORMED):
            return {}
        except OSError as exc:
            raise SourceError(f"cannot read {self._path}: {exc.strerror}") from exc
