"""SQLite: PRAGMA integrity_check, and the rows of its tables."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from backupd.drill.probes.base import OutOfTime, Results

_STEPS = 100_000
_COUNTED_TABLES = 20


def check_database(path: Path, name: str, deadline: float, results: Results) -> None:
    """Check the database at `path`, called `name` in the archive, with the journal or log that lies beside it.

    It may be written: a rollback journal is played back, a log is read, as its application would. OutOfTime when
    `deadline`, of the monotonic clock, has passed.
    """
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True, timeout=10)) as database:
            database.set_progress_handler(lambda: int(time.monotonic() > deadline), _STEPS)
            database.execute("PRAGMA trusted_schema = OFF")
            database.execute("PRAGMA cell_size_check = ON")
            complaints = [str(row[0]) for row in database.execute("PRAGMA integrity_check(5)")]
            if complaints != ["ok"]:
                results.failed(f"{name}: integrity_check: {complaints[0]}", damage=True)
                return
            rows, tables = _count(database, name, results)
            results.proven(f"{name}: integrity_check ok, {rows:,} rows in {tables:,} tables")
    except sqlite3.DatabaseError as exc:
        if time.monotonic() > deadline:
            raise OutOfTime(f"{name}: integrity_check takes longer than it may") from exc
        if "no such module" in str(exc):
            results.skipped(f"{name}: cannot be checked here: {exc}")
        else:
            results.failed(f"{name}: {exc}", damage=True)


def _count(database: sqlite3.Connection, name: str, results: Results) -> tuple[int, int]:
    query = "SELECT name FROM sqlite_master WHERE type = 'table' AND sql NOT LIKE 'CREATE VIRTUAL%' ORDER BY name"
    tables = [str(row[0]) for row in database.execute(query)]
    rows = 0
    for table in tables[:_COUNTED_TABLES]:
        escaped = table.replace('"', '""')
        rows += int(database.execute(f'SELECT count(*) FROM "{escaped}"').fetchone()[0])  # noqa: S608  (quoted)
    results.counts[f"{name}: tables"] = len(tables)
    results.counts[f"{name}: rows"] = rows
    return rows, len(tables)
