"""The record of every run: what was done, when, for which plan, and what came of it.

SQLite in the state directory. It can be lost without harm to any snapshot: what there is, the stores say.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Literal

import msgspec

from backupd.errors import SourceError
from backupd.malformed import MALFORMED
from backupd.process import alive, this_process
from backupd.statefile import make_private

RunKind = Literal["backup", "restore", "verify", "drill", "prune", "recover"]
Trigger = Literal["manual", "schedule", "catch-up", "start"]
Outcome = Literal["running", "done", "partial", "failed", "interrupted", "skipped"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, plan TEXT, started REAL NOT NULL,
    outcome TEXT NOT NULL, process TEXT NOT NULL, run TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS runs_by_plan ON runs (kind, plan, started);
"""


class VolumeFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup did with one volume. Sizes in bytes: `plain` of the tar, `new` of it, `stored` for what was new."""

    plain_bytes: int
    new_bytes: int
    stored_bytes: int
    files: int
    warnings: int
    seconds: float
    full: bool


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One run. `downtime` is seconds by container; `volumes` has figures of backups only.

    `part`: of volumes that somebody named, and not of the plan as a whole. `early`: skipped: there was nothing yet that
    it could be about.
    `error` is the one line that the user was told, `notes` what else is to be known (a store that failed, a volume that
    is not in the snapshot). Neither holds secrets.
    """

    id: str
    kind: RunKind
    plan: str | None = None
    part: bool = False
    early: bool = False
    trigger: Trigger = "manual"
    started: datetime
    finished: datetime | None = None
    outcome: Outcome = "running"
    snapshot: str | None = None
    stores: list[str] = []
    volumes: dict[str, VolumeFigures] = {}
    downtime: dict[str, float] = {}
    warnings: int = 0
    error: str | None = None
    exit_code: int = 0
    notes: list[str] = []

    @property
    def seconds(self) -> float | None:
        """How long it took; None while it runs."""
        return (self.finished - self.started).total_seconds() if self.finished else None

    @property
    def good(self) -> bool:
        """Whether it did all that it was to do."""
        return self.outcome == "done"

    @property
    def plain_bytes(self) -> int:
        """Bytes of all tar streams."""
        return sum(volume.plain_bytes for volume in self.volumes.values())

    @property
    def new_bytes(self) -> int:
        """What of them no earlier snapshot had."""
        return sum(volume.new_bytes for volume in self.volumes.values())

    @property
    def stored_bytes(self) -> int:
        """What that took in the first store."""
        return sum(volume.stored_bytes for volume in self.volumes.values())

    @property
    def files(self) -> int:
        """Members of all tar streams."""
        return sum(volume.files for volume in self.volumes.values())


# Made on import, as in `repository.manifest`.
_RUN: msgspec.json.Decoder[Run] = msgspec.json.Decoder(Run)


class History:
    """Runs, newest first. Safe for several processes and threads; SourceError from every method if it can't be kept.

    A run that is recorded as running whose process has died is `interrupted`: whoever reads sees it as such.
    """

    def __init__(self, state: Path) -> None:
        self._path = state / "history.sqlite"

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        try:
            make_private(self._path)
            with closing(sqlite3.connect(self._path, timeout=30)) as connection, connection:
                if connection.execute("PRAGMA user_version").fetchone()[0] == 0:
                    connection.executescript(f"{_SCHEMA} PRAGMA user_version = 1;")
                yield connection
        except (OSError, sqlite3.Error, *MALFORMED) as exc:
            raise SourceError(
                f"the history {self._path} cannot be used: {exc}", hint="it can be moved away: no snapshot needs it"
            ) from exc

    def put(self, run: Run) -> None:
        """Record a run, or what is known of it by now."""
        with self._connected() as connection:
            connection.execute(
                "INSERT INTO runs (id, kind, plan, started, outcome, process, run) VALUES (?, ?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (id) DO UPDATE SET outcome = excluded.outcome, run = excluded.run",
                (
                    *(run.id, run.kind, run.plan, run.started.timestamp(), run.outcome, this_process()),
                    msgspec.json.encode(run).decode(),
                ),
            )

    def runs(
        self,
        *,
        kind: RunKind | None = None,
        plan: str | None = None,
        outcomes: Collection[Outcome] = (),
        limit: int = 100,
        whole: bool = False,
    ) -> Sequence[Run]:
        """The newest runs of that kind, plan and outcome, newest first. `whole`: none that is of a part of its plan."""
        where, values = ["1"], []
        for column, value in (("kind", kind), ("plan", plan)):
            if value is not None:
                where.append(f"{column} = ?")
                values.append(value)
        if outcomes:  # one that is said to be running may have died
            where.append(f"outcome IN ({', '.join('?' * (len(outcomes) + 1))})")
            values += [*outcomes, "running"]
        if not self._path.exists():
            return []
        found: list[Run] = []
        query = f"SELECT run, process FROM runs WHERE {' AND '.join(where)} ORDER BY started DESC, number DESC"  # noqa: S608
        with self._connected() as connection:
            for text, process in connection.execute(query, values):
                run = _as_it_is(_RUN.decode(text), process)
                if (not outcomes or run.outcome in outcomes) and not (whole and run.part):
                    found.append(run)
                if len(found) == limit:
                    break
        return found

    def last(self, kind: RunKind, plan: str | None = None, outcomes: Collection[Outcome] = ()) -> Run | None:
        """The newest run of that kind, plan and outcome. One of a part of a plan does not count."""
        return next(iter(self.runs(kind=kind, plan=plan, outcomes=outcomes, limit=1, whole=True)), None)

    def find(self, prefix: str) -> Sequence[Run]:
        """Runs whose id begins so."""
        if not self._path.exists():
            return []
        with self._connected() as connection:
            rows = connection.execute("SELECT run, process FROM runs WHERE substr(id, 1, ?) = ?", (len(prefix), prefix))
            return [_as_it_is(_RUN.decode(text), process) for text, process in rows]

    def settle(self, now: datetime) -> Sequence[Run]:
        """Write down as interrupted what died; returns those runs."""
        died = [run for run in self.runs(outcomes=["interrupted"], limit=1000) if run.finished is None]
        settled = [msgspec.structs.replace(run, finished=now) for run in died]
        for run in settled:
            self.put(run)
        return settled

    def forget(self, before: datetime) -> int:
        """Remove runs that began before that moment, but for the newest good one of each kind and plan."""
        with self._connected() as connection:
            return connection.execute(
                "DELETE FROM runs WHERE started < ? AND outcome <> 'running' AND number NOT IN"
                " (SELECT number FROM (SELECT number, max(started) FROM runs WHERE outcome = 'done'"
                " GROUP BY kind, plan, json_extract(run, '$.part') IS 1))",
                (before.timestamp(),),
            ).rowcount


def _as_it_is(run: Run, process: str) -> Run:
    if run.outcome != "running" or alive(process):
        return run
    return msgspec.structs.replace(run, outcome="interrupted", error=run.error or "the process was killed")
