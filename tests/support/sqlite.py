"""SQLite databases that are written in containers, and what is in the copies."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

WRITER = Path(__file__).with_name("sqlite_writer.py")
OWNER = 1000


@dataclass(frozen=True)
class Writer:
    """A container that writes; its log has a line for each commit."""

    container: Any

    def commits(self) -> list[tuple[int, float]]:
        lines = self.container.logs().decode().splitlines()
        return [(int(line.split()[0]), float(line.split()[1])) for line in lines if line[:1].isdigit()]

    def acknowledged(self) -> int:
        """The number of the last commit that the writer knows to have been made."""
        return int(self.container.logs(tail=1).split()[0])

    def wait_for(self, number: int, seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while not (commits := self.commits()) or commits[-1][0] < number:
            assert time.monotonic() < deadline, self.container.logs().decode()[-500:]
            time.sleep(0.05)

    def longest_gap(self, begin: float, end: float) -> float:
        times = [at for _, at in self.commits() if begin - 0.5 <= at <= end + 0.5]
        return max(after - before for before, after in pairwise(times))


def start_writer(run_container: Any, image: str, volume: str, name: str, mode: str, **rest: Any) -> Writer:
    return Writer(
        run_container(
            image,
            ["python3", "-c", WRITER.read_text(), f"/srv/{name}", mode],
            volumes=[f"{volume}:/srv"],
            user=f"{OWNER}:{OWNER}",
            **rest,
        )
    )


def fill(path: Path, mode: str = "wal", mebibytes: int = 1, owner: int = OWNER) -> sqlite3.Connection:
    """A database with random rows, left open."""
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA journal_mode = {mode}")
    with connection:
        connection.execute("CREATE TABLE blobs (number INTEGER PRIMARY KEY, data BLOB)")
        connection.executemany("INSERT INTO blobs (data) VALUES (randomblob(?))", [(1 << 20,)] * mebibytes)
    give(path, owner)
    return connection


def give(path: Path, owner: int = OWNER) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        if (side := Path(f"{path}{suffix}")).exists():
            os.chown(side, owner, owner)


def numbers(path: Path) -> int:
    """How many events are in a copy, which is whole, and without gaps."""
    with closing(sqlite3.connect(path)) as copy:
        assert copy.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        count, least, most = copy.execute("SELECT count(*), min(number), max(number) FROM events").fetchone()
        assert (least, most) == (1, count), "numbers are missing"
        assert copy.execute("SELECT count FROM total").fetchone() == (count,)
    return int(count)
