"""Soaks of Redis and SQLite: a writer without a pause, and for Redis rewrites and saves of its own besides.

`auto` stands for the strategy that is made for them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from sqlite3 import DatabaseError
from typing import Any

from tests.support.redis import Redis, held_by, start_server
from tests.support.redis import start_writer as start_redis_writer
from tests.support.sqlite import OWNER, fill, numbers
from tests.support.sqlite import start_writer as start_sqlite_writer
from tools.soak_bench import LABELS, Bench, Round

_MEBIBYTES = 200
_CHECKERS = (("redis-check-rdb", "*.rdb"), ("redis-check-aof", "*.manifest"))


def redis_rdb(bench: Bench, consistency: str, rounds: int) -> Iterator[Round]:
    """A server that saves by itself whenever something was written."""
    yield from _redis(bench, consistency, rounds, ("--save", "5 1"))


def redis_aof(bench: Bench, consistency: str, rounds: int) -> Iterator[Round]:
    """A server with an append-only file, which is rewritten while every other backup runs."""
    yield from _redis(bench, consistency, rounds, ("--appendonly", "yes", "--save", ""))


def sqlite_wal(bench: Bench, consistency: str, rounds: int) -> Iterator[Round]:
    """A writer, and a large database beside its own."""
    yield from _sqlite(bench, consistency, rounds, "wal")


def sqlite_journal(bench: Bench, consistency: str, rounds: int) -> Iterator[Round]:
    """The same with a rollback journal, where copying and writing exclude each other."""
    yield from _sqlite(bench, consistency, rounds, "delete")


class _Containers:
    """As the fixture `run_container`; all are removed with the block."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._started: list[Any] = []

    def __call__(self, image: str, command: Sequence[str], **rest: Any) -> Any:
        started = self._bench.client.containers.run(image, list(command), detach=True, labels=LABELS, **rest)
        self._started.append(started)
        return started

    @classmethod
    @contextmanager
    def of(cls, bench: Bench) -> Iterator[_Containers]:
        containers = cls(bench)
        try:
            yield containers
        finally:
            for started in reversed(containers._started):
                started.remove(force=True, v=True)


def _redis(bench: Bench, consistency: str, rounds: int, arguments: Sequence[str]) -> Iterator[Round]:
    volume, image, helper = bench.volume(), bench.images.tag("redis"), bench.images.tag("helper")
    cli = bench.cli(volume, "redis" if consistency == "auto" else consistency)
    with _Containers.of(bench) as run:
        server = start_server(run, image, volume, arguments)
        server.fill(_MEBIBYTES * 500, 2000)
        writer = start_redis_writer(run, helper, server)
        for number in range(rounds):
            if number % 2 and "--appendonly" in arguments:
                server.cli("BGREWRITEAOF")
            acknowledged, began = writer.acknowledged(), time.time()
            cli.run("backup")
            ended = time.time()
            copy = bench.volume()
            cli.run("restore", "latest", "data", "--into", copy, "--yes")
            lost, trouble = _examined_redis(bench, copy, arguments, acknowledged)
            bench.remove_volume(copy)
            yield Round(trouble, lost, writer.longest_gap(began, ended), ended - began)


def _examined_redis(bench: Bench, volume: str, arguments: Sequence[str], acknowledged: int) -> tuple[int, str]:
    image, root = bench.images.tag("redis"), _root(bench, volume)
    with _Containers.of(bench) as run:
        for checker, pattern in _CHECKERS:
            for path in root.rglob(pattern):
                container = run(image, [checker, str(path.relative_to(root))], volumes=[f"{volume}:/data"])
                if container.wait()["StatusCode"] != 0:
                    return 0, f"{checker} refuses {path.name}"
        try:
            server: Redis = start_server(run, image, volume, arguments)
            last = server.cli("GET", "last")
            if not last:
                return acknowledged, "it is empty"
            return max(0, acknowledged - held_by(server)), ""
        except AssertionError as exc:
            return 0, " ".join(str(exc).split())[:100] or "unsound"


def _sqlite(bench: Bench, consistency: str, rounds: int, mode: str) -> Iterator[Round]:
    volume, helper = bench.volume(), bench.images.tag("helper")
    cli = bench.cli(volume, "sqlite" if consistency == "auto" else consistency)
    root = _root(bench, volume)
    os.chown(root, OWNER, OWNER)
    fill(root / "app.db", mode, _MEBIBYTES).close()
    with _Containers.of(bench) as run:
        writer = start_sqlite_writer(run, helper, volume, "app.db", mode)
        writer.wait_for(500)
        for _ in range(rounds):
            acknowledged, began = writer.acknowledged(), time.time()
            cli.run("backup")
            ended = time.time()
            copy = bench.volume()
            cli.run("restore", "latest", "data", "--into", copy, "--yes")
            try:
                lost, trouble = max(0, acknowledged - numbers(_root(bench, copy) / "app.db")), ""
            except (AssertionError, DatabaseError) as exc:
                lost, trouble = 0, " ".join(str(exc).split())[:100] or "unsound"
            bench.remove_volume(copy)
            yield Round(trouble, lost, writer.longest_gap(began, ended), ended - began)


def _root(bench: Bench, volume: str) -> Path:
    return Path(bench.client.volumes.get(volume).attrs["Mountpoint"])
