"""The record of acts that must be finished or undone after a crash: written before the act, removed after it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from backupd.errors import SourceError
from backupd.malformed import MALFORMED
from backupd.model import Hook, Volume
from backupd.statefile import make_private

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS acts"
    " (id INTEGER PRIMARY KEY, begun TEXT NOT NULL, decided INTEGER NOT NULL DEFAULT 0, act TEXT NOT NULL)"
)


class RestoreAct(msgspec.Struct, frozen=True, kw_only=True, tag="restore"):
    """A restored tree is being put in the place of what `volume` holds; `swap` is the name of its staging directory.

    `created`: the volume did not exist before. `under`: containers that use it are to go on meanwhile, by request.
    """

    volume: Volume
    swap: str
    keep_old: bool
    created: bool = False
    under: bool = False


Hold = Literal["stop", "pause"]


class HoldAct(msgspec.Struct, frozen=True, kw_only=True, tag="hold"):
    """A service is being held still: the container of that id is to run again, or to be paused again if it was."""

    service: str
    name: str
    how: Hold
    paused: bool = False


class CloneAct(msgspec.Struct, frozen=True, kw_only=True, tag="clone"):
    """A volume's files are being cloned into its directory `name`, which is to go."""

    volume: Volume
    name: str


class PostAct(msgspec.Struct, frozen=True, kw_only=True, tag="post"):
    """Commands that are to be run in containers once reading has ended. `token` names the lock of who is at it."""

    token: str
    hooks: list[Hook]


class DrillAct(msgspec.Struct, frozen=True, kw_only=True, tag="drill"):
    """A drill of that id is under way on an engine: what it has put up there and here is to be removed."""

    drill: str
    engine: str


Act = RestoreAct | HoldAct | CloneAct | PostAct | DrillAct

# Made on import, as in `repository.manifest`.
_ACT: msgspec.json.Decoder[Act] = msgspec.json.Decoder(Act)


class OpenAct(NamedTuple):
    """An act that was begun and not ended. `decided`: it is to be finished; otherwise it is to be undone."""

    number: int
    act: Act
    decided: bool


class Journal:
    """SQLite in the state directory, flushed to disk before an act begins. Safe for several processes.

    SourceError from every method if it can't be kept or read.
    """

    def __init__(self, state: Path) -> None:
        self._path = state / "journal.sqlite"

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        """A connection with a transaction that ends with the block."""
        try:
            make_private(self._path)
            with closing(sqlite3.connect(self._path, timeout=30)) as connection, connection:
                connection.execute("PRAGMA synchronous = EXTRA")
                connection.execute(_SCHEMA)
                yield connection
        except (OSError, sqlite3.Error, TypeError, *MALFORMED) as exc:
            raise SourceError(
                f"the journal {self._path} cannot be used: {exc}",
                hint="without it `backupd recover` looks into every configured volume: move the file away",
            ) from exc

    def begin(self, act: Act, now: datetime) -> int:
        """Record an act that is about to begin; returns its number. It is on disk when this returns."""
        with self._connected() as connection:
            cursor = connection.execute(
                "INSERT INTO acts (begun, act) VALUES (?, ?)", (now.isoformat(), msgspec.json.encode(act).decode())
            )
            assert cursor.lastrowid is not None
            return cursor.lastrowid

    def decide(self, numbers: Sequence[int], *, forward: bool) -> None:
        """Should the process die from now on, all of these acts are to be finished (or all undone)."""
        with self._connected() as connection:
            connection.executemany(
                "UPDATE acts SET decided = ? WHERE id = ?", [(forward, number) for number in numbers]
            )

    def end(self, numbers: Sequence[int]) -> None:
        """These acts are over, one way or the other, and leave nothing to do."""
        with self._connected() as connection:
            connection.executemany("DELETE FROM acts WHERE id = ?", [(number,) for number in numbers])

    def concerns(self, volume: Volume) -> bool:
        """Whether something that was begun on the volume has not ended."""
        place = (volume.kind, volume.source)
        return any(
            (seen.act.volume.kind, seen.act.volume.source) == place
            for seen in self.open_acts()
            if isinstance(seen.act, RestoreAct)
        )

    def open_acts(self) -> Sequence[OpenAct]:
        """What was begun and not ended, oldest first: by a process that died, or by one that is at it now."""
        if not self._path.exists():
            return []
        with self._connected() as connection:
            rows = connection.execute("SELECT id, act, decided FROM acts ORDER BY id").fetchall()
            return [OpenAct(number, _ACT.decode(act), bool(decided)) for number, act, decided in rows]
