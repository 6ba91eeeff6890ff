"""A soak of plain files: a writer that appends to many of them in turn, with data that nobody touches in between."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.stacks import wait_until
from tools.soak_bench import Bench, Containers, Round, gap_of, lines_since

_WRITER = Path(__file__).parents[1] / "tests" / "support" / "files_writer.py"
_FILES = 50


def files(bench: Bench, consistency: str, count: int) -> Iterator[Round]:
    """Files of one moment hold numbers without a gap."""
    volume = bench.volume()
    for name in range(_FILES):
        (bench.root(volume) / f"{name:04}.data").write_bytes(os.urandom((bench.mebibytes << 20) // _FILES))
    with bench.containers() as run:
        writer = _start(bench, run, volume)
        wait_until(lambda: len(writer.logs(tail=2 * _FILES).splitlines()) == 2 * _FILES)
        yield from bench.rounds(_Files(bench, writer), bench.cli(volume, consistency), count)


def _start(bench: Bench, run: Containers, volume: str) -> Any:
    command = ["python3", "-c", _WRITER.read_text(), "/srv", str(_FILES)]
    return run(bench.images.tag("helper"), command, volumes=[f"{volume}:/srv"], init=True)


@dataclass(frozen=True)
class _Files:
    bench: Bench
    writer: Any

    def press(self) -> None:
        """The writer never rests."""

    def disturb(self, number: int) -> None:
        """The writer comes past every file many times while they are read."""

    def acknowledged(self) -> int:
        return int(self.writer.logs(tail=1).split()[0])

    def longest_gap(self, begin: float, end: float) -> float:
        return gap_of([float(at) for _, at in lines_since(self.writer, begin)], begin, end)

    def examine(self, copy: str, acknowledged: int) -> int:
        root = self.bench.root(copy)
        found = sorted(int(line) for path in root.glob("*.log") for line in path.read_bytes().split())
        missing = sorted(set(range(1, found[-1] + 1)) - set(found))
        assert not missing, f"files of several moments: {len(missing)} numbers below {found[-1]} are missing"
        with self.bench.containers() as run:
            writer = _start(self.bench, run, copy)
            wait_until(lambda: writer.logs(tail=1))
            assert int(writer.logs(tail=1).split()[0]) > found[-1], "the writer does not go on where it was"
        return max(0, acknowledged - found[-1])
