"""Since when schedules are known: what never ran has missed nothing before that."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from pathlib import Path

import msgspec

from backupd.malformed import MALFORMED
from backupd.statefile import read_private, write_private

_SINCE: msgspec.json.Decoder[dict[str, datetime]] = msgspec.json.Decoder(dict[str, datetime])


class KnownSince:
    """`schedules.json` in the state directory. If it is lost, all are known from then on."""

    def __init__(self, state: Path) -> None:
        self._path = state / "schedules.json"

    def meet(self, keys: Collection[str], now: datetime) -> dict[str, datetime]:
        """Since when each is known, those included that are met now; others are forgotten."""
        before = self._read()
        known = {key: before.get(key, now) for key in keys}
        if known != before:
            write_private(self._path, msgspec.json.encode(known))
        return known

    def look(self, keys: Collection[str], now: datetime) -> dict[str, datetime]:
        """The same for who only looks: nothing is written."""
        before = self._read()
        return {key: before.get(key, now) for key in keys}

    def _read(self) -> dict[str, datetime]:
        try:
            return _SINCE.decode(read_private(self._path) or b"{}")
        except MALFORMED:
            return {}
