"""Soaks of Redis: a writer without a pause and redis-benchmark beside it, and saves and rewrites of the server's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from tests.support.redis import Redis, Writer, held_by, start_server, start_writer
from tools.soak_bench import Bench, Containers, Round, lines_since

_KEYS_OF_A_MEBIBYTE = 500
_VALUE_BYTES = 2000
_ROUNDS_OF_A_SERVER = 5  # later ones would be of gigabytes: the writer never writes a key twice
_BENCHMARK = ("redis-benchmark", "-q", *("-n", "20000"), *("-c", "2"), *("-r", "100000"), *("-d", "100"))
_COMMANDS = ("-t", "set,incr,hset,sadd,zadd")
_CHECKERS = (("redis-check-rdb", "*.rdb"), ("redis-check-aof", "*.manifest"))


def redis_rdb(bench: Bench, consistency: str, count: int) -> Iterator[Round]:
    """A server that saves by itself whenever something was written."""
    yield from _redis(bench, consistency, count, ("--save", "5 1"))


def redis_aof(bench: Bench, consistency: str, count: int) -> Iterator[Round]:
    """A server with an append-only file, which is rewritten while every other backup runs."""
    yield from _redis(bench, consistency, count, ("--appendonly", "yes", "--save", ""))


def _redis(bench: Bench, consistency: str, count: int, arguments: Sequence[str]) -> Iterator[Round]:
    for begun in range(0, count, _ROUNDS_OF_A_SERVER):
        volume, image = bench.volume(), bench.images.tag("redis")
        with bench.containers() as run:
            server = start_server(run, image, volume, arguments)
            server.fill(bench.mebibytes * _KEYS_OF_A_MEBIBYTE, _VALUE_BYTES)
            writer = start_writer(run, bench.images.tag("helper"), server)
            subject = _Redis(bench, server, writer, arguments)
            rounds = min(_ROUNDS_OF_A_SERVER, count - begun)
            yield from bench.rounds(subject, bench.cli(volume, consistency), rounds)
        bench.remove_volume(volume)


@dataclass(frozen=True)
class _Redis:
    bench: Bench
    server: Redis
    writer: Writer
    arguments: Sequence[str]

    def press(self) -> None:
        self.server.container.exec_run([*_BENCHMARK, *_COMMANDS], detach=True)

    def disturb(self, number: int) -> None:
        if number % 2 and "--appendonly" in self.arguments:
            self.server.cli("BGREWRITEAOF")

    def acknowledged(self) -> int:
        return self.writer.acknowledged()

    def longest_gap(self, begin: float, end: float) -> float:
        """A line tells the longest gap since the last one."""
        lines = lines_since(self.writer.container, begin)
        return max((float(gap) for _, at, gap in lines if begin <= float(at) <= end + 0.5), default=end - begin)

    def examine(self, copy: str, acknowledged: int) -> int:
        with self._writer_rests(), self.bench.containers() as run:
            self._check(run, copy)
            server = start_server(run, self.bench.images.tag("redis"), copy, self.arguments)
            assert server.cli("GET", "last"), f"it is empty, though {acknowledged} writes had been acknowledged"
            assert server.cli("SET", "after", "restore") == "OK"
            return max(0, acknowledged - held_by(server))

    @contextmanager
    def _writer_rests(self) -> Iterator[None]:
        """It would write a gigabyte meanwhile. Leaves it when it writes again, the gap of its rest behind it."""
        container, said = self.writer.container, self.writer.acknowledged()
        container.pause()
        try:
            yield
        finally:
            container.unpause()
            self.server.wait_until(lambda: self.writer.acknowledged() > said + 10_000)

    def _check(self, run: Containers, copy: str) -> None:
        root = self.bench.root(copy)
        for checker, pattern in _CHECKERS:
            for path in root.rglob(pattern):
                command = [checker, str(path.relative_to(root))]
                container = run(self.bench.images.tag("redis"), command, volumes=[f"{copy}:/data"])
                assert container.wait()["StatusCode"] == 0, f"{checker} refuses {path.name}"
