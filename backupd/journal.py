"""The record of acts that must be finished or undone after a crash: written before the act, removed after it."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path

import msgspec

from backupd.model import Volume

_SCHEMA = "CREATE TABLE IF NOT EXISTS acts (id INTEGER PRIMARY KEY, begun TEXT NOT NULL, act TEXT NOT NULL)"


class RestoreAct(msgspec.Struct, frozen=True, kw_only=True, tag="restore"):
    """A restored tree is being put in the place of what `volume` holds; `swap` is the name of its staging directory."""

    volume: Volume
    swap: str
    keep_old: bool


class Journal:
    """SQLite in the state directory, flushed to disk before an act begins. Safe for several processes."""

    def __init__(self, state: Path) -> None:
        self._path = state / "journal.sqlite"

    def _connect(self) -> sqlite3.Connection:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        connection = sqlite3.connect(self._path, timeout=30, isolation_level=None)
        connection.execute("PRAGMA synchronous = EXTRA")
        connection.execute(_SCHEMA)
        return connection

    def begin(self, act: RestoreAct, now: datetime) -> int:
        """Record an act that is about to begin; returns its number. It is on disk when this returns."""
        with closing(self._connect()) as connection:
            cursor = connection.execute(
                "INSERT INTO acts (begun, act) VALUES (?, ?)", (now.isoformat(), msgspec.json.encode(act).decode())
            )
            assert cursor.lastrowid is not None
            return cursor.lastrowid

    def end(self, numbers: Sequence[int]) -> None:
        """These acts are over, one way or the other, and leave nothing to do."""
        with closing(self._connect()) as connection:
            connection.executemany("DELETE FROM acts WHERE id = ?", [(number,) for number in numbers])

    def open_acts(self) -> Sequence[tuple[int, RestoreAct]]:
        """What was begun and not ended, oldest first: by a process that died, or by one that is at it now."""
        if not self._path.exists():
            return []
        with closing(self._connect()) as connection:
            rows = connection.execute("SELECT id, act FROM acts ORDER BY id").fetchall()
        return [(number, msgspec.json.decode(act, type=RestoreAct)) for number, act in rows]
