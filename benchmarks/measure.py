"""Running commands and keeping what they took: time, peak memory, bytes stored."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple


class CommandFailed(Exception):  # noqa: N818  (reads as what it is)
    """A measured command did not end with 0."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run. `peak_bytes` is the resident memory of the largest process of the command, the rest is of all.

    `others` is the share of the processors that went to other processes meanwhile, containers of its own included.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    others: float
    stored_bytes: int = 0


class Ratio(NamedTuple):
    """The median of the ratios within each round, and the lowest and highest of them."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f}" + (f" ({self.low:.2f}–{self.high:.2f})" if self.low != self.high else "")


@dataclass
class Results:
    """Runs by what was done and by whom, one for each round, in order."""

    runs: dict[tuple[str, str], list[Run]] = field(default_factory=lambda: defaultdict(list))
    data_bytes: dict[str, int] = field(default_factory=dict)
    facts: dict[str, float] = field(default_factory=dict)

    def of(self, phase: str, contender: str) -> list[Run]:
        return self.runs.get((phase, contender), [])

    def median(self, phase: str, contender: str, of: str) -> float | None:
        runs = self.of(phase, contender)
        return statistics.median(getattr(run, of) for run in runs) if runs else None

    def peak(self, phase: str, contender: str) -> int:
        return max((run.peak_bytes for run in self.of(phase, contender)), default=0)

    def ratio(self, phase: str, over: str, under: str, *, of: str = "seconds") -> Ratio | None:
        """How many times more `over` took than `under`, round by round."""
        pairs = zip(self.of(phase, over), self.of(phase, under), strict=False)
        ratios = [getattr(a, of) / getattr(b, of) for a, b in pairs if getattr(b, of)]
        return Ratio(statistics.median(ratios), min(ratios), max(ratios)) if ratios else None


def run(command: str, environment: Mapping[str, str]) -> Run:
    """Run a shell command, stopwatch in hand. What is dirty in the page cache is written back before.

    A small process holds the stopwatch: the memory of the one that starts a program counts among that program's peaks,
    and the benchmark itself has grown by comparing what was restored.
    """
    os.sync()
    before = _ticks()
    with tempfile.TemporaryFile() as output, tempfile.NamedTemporaryFile() as taken:
        process = subprocess.Popen(
            [sys.executable, "-S", "-c", _STOPWATCH, taken.name, command],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            process_group=0,
        )
        try:
            process.wait()
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        if process.returncode:
            output.seek(0)
            said = output.read().decode(errors="replace")[-2000:]
            raise CommandFailed(f"`{command}` ended with {process.returncode}:\n{said}")
        seconds, cpu_seconds, peak_kib = json.loads(taken.read())
    busy, total = (after - earlier for after, earlier in zip(_ticks(), before, strict=True))
    others = max(0.0, busy - cpu_seconds * os.sysconf("SC_CLK_TCK")) / max(1, total)
    return Run(seconds, cpu_seconds, peak_kib * 1024, others)


_STOPWATCH = """
import json, os, subprocess, sys, time
started = time.perf_counter()
process = subprocess.Popen(["bash", "-o", "pipefail", "-c", sys.argv[2]])
_, status, usage = os.wait4(process.pid, 0)
seconds = time.perf_counter() - started
with open(sys.argv[1], "w") as file:
    json.dump([seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss], file)
sys.exit(os.waitstatus_to_exitcode(status) % 256)
"""


@dataclass
class Patience:
    """Seconds that may be spent, all in all, on waiting until others leave the processors alone."""

    left: float

    def wait(self) -> None:
        """Until others use less than a tenth of the processors, or patience is at an end."""
        while self.left > 0:
            before = _ticks()
            time.sleep(0.5)
            busy, total = (after - earlier for after, earlier in zip(_ticks(), before, strict=True))
            if busy < 0.1 * total:
                return
            self.left -= 0.5


def _ticks() -> tuple[int, int]:
    """How long the processors have been busy, and how long there have been processors."""
    fields = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return sum(fields) - fields[3] - fields[4], sum(fields)
