"""Which repository each store held when it was last written, to notice a store that is not the one it was."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from backupd.errors import StoreError
from backupd.malformed import MALFORMED
from backupd.statefile import locked, read_private, write_private


class KnownRepositories:
    """`stores.json` in the state directory: repository ids by store name. Rebuilt when it is lost."""

    def __init__(self, state: Path) -> None:
        self._path = state / "stores.json"

    def of(self, store: str) -> str | None:
        """What the store held; None if this machine never wrote to it."""
        return self._read().get(store)

    def check(self, store: str, repository: str | None) -> None:
        """StoreError if the store held another repository, or now holds none; `repository` is what it holds."""
        known = self.of(store)
        if known is not None and known != repository:
            found = "now holds none" if repository is None else f"now holds {repository}"
            raise StoreError(
                f"store {store} held the repository {known}, and {found}: is it mounted?",
                hint=f"if that is as it should be, remove {store!r} from {self._path}",
            )

    def remember(self, store: str, repository: str) -> None:
        """The store holds that repository."""
        if self.of(store) != repository:
            with locked(self._path):
                write_private(self._path, msgspec.json.encode({**self._read(), store: repository}))

    def _read(self) -> Mapping[str, str]:
        try:
            return msgspec.json.decode(read_private(self._path) or b"{}", type=dict[str, str])
        except MALFORMED:
            return {}
