"""Soaks of SQLite: a writer, and a large table beside its own in the same database."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from sqlite3 import DatabaseError

from tests.support.sqlite import OWNER, Writer, fill, numbers, start_writer
from tools.soak_bench import Bench, Round, gap_of, lines_since, unsound_as_assertion

_NAME = "app.db"


def sqlite_wal(bench: Bench, consistency: str, count: int) -> Iterator[Round]:
    """In WAL mode, where nobody waits for anybody."""
    yield from _sqlite(bench, consistency, count, "wal")


def sqlite_journal(bench: Bench, consistency: str, count: int) -> Iterator[Round]:
    """With a rollback journal, where copying and writing exclude each other."""
    yield from _sqlite(bench, consistency, count, "delete")


def _sqlite(bench: Bench, consistency: str, count: int, mode: str) -> Iterator[Round]:
    volume = bench.volume()
    root = bench.root(volume)
    os.chown(root, OWNER, OWNER)
    fill(root / _NAME, mode, bench.mebibytes).close()
    with bench.containers() as run:
        writer = start_writer(run, bench.images.tag("helper"), volume, _NAME, mode)
        writer.wait_for(500, seconds=300)
        yield from bench.rounds(_Sqlite(bench, writer, mode), bench.cli(volume, consistency), count)


@dataclass(frozen=True)
class _Sqlite:
    bench: Bench
    writer: Writer
    mode: str

    def press(self) -> None:
        """The writer never rests."""

    def disturb(self, number: int) -> None:
        """The writer rewrites pages all over the file."""

    def acknowledged(self) -> int:
        return self.writer.acknowledged()

    def longest_gap(self, begin: float, end: float) -> float:
        return gap_of([float(at) for _, at in lines_since(self.writer.container, begin)], begin, end)

    def examine(self, copy: str, acknowledged: int) -> int:
        with unsound_as_assertion(DatabaseError):
            held = numbers(self.bench.root(copy) / _NAME)
        with self.bench.containers() as run:
            start_writer(run, self.bench.images.tag("helper"), copy, _NAME, self.mode).wait_for(held + 1, seconds=120)
        return max(0, acknowledged - held)
