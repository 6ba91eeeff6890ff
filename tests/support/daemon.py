"""A daemon as a process of its own, and its log."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import Any

from tests.support.cli import Cli

PATIENCE_SECONDS = 120


@dataclass
class Running:
    """`backupd run`: `lines` grows as it logs."""

    process: subprocess.Popen[str]
    lines: list[dict[str, Any]] = field(default_factory=list)
    garbage: list[str] = field(default_factory=list)

    def read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            try:
                self.lines.append(json.loads(line))
            except json.JSONDecodeError:
                self.garbage.append(line)

    def wait_for(self, text: str, count: int = 1) -> dict[str, Any]:
        """The line that says so for the nth time; fails if it does not come."""

        def found() -> list[dict[str, Any]]:
            return [line for line in self.lines if text in line["message"]]

        self.until(lambda: len(found()) >= count, text)
        return found()[count - 1]

    def until(self, condition: Callable[[], bool], what: str = "it") -> None:
        def is_so() -> bool:
            ended = self.process.poll() is not None  # before the last look
            so = condition()
            assert so or not ended, f"it ended with {self.process.returncode}:\n{self}"
            return so

        wait_until(is_so, what, self)

    def says(self, text: str) -> bool:
        return any(text in line["message"] for line in self.lines)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.signal(signal.SIGTERM)
        return self.ended()

    def ended(self) -> int:
        code = self.process.wait(PATIENCE_SECONDS)
        self._reader.join(PATIENCE_SECONDS)
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code

    def __str__(self) -> str:
        return "\n".join([*map(str, self.lines), *self.garbage])

    def __post_init__(self) -> None:
        self._reader = Thread(target=self.read, daemon=True)
        self._reader.start()


def wait_until(condition: Callable[[], bool], what: str, more: object = "") -> None:
    """Fails if it does not come to be so."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come\n{more}"
        time.sleep(0.05)


@contextmanager
def daemon(cli: Cli) -> Iterator[Running]:
    """One that is killed in the end unless it has ended; nothing that it printed is anything but a log line."""
    process = subprocess.Popen(
        cli.command("run"), env=cli.env(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    running = Running(process)
    try:
        yield running
        assert running.garbage == []
    finally:
        if process.poll() is None:
            process.kill()
        running.ended()


def known_since(state: Path, since: str, *keys: str) -> None:
    """As if these schedules had been known for so long, so that they have missed what was since."""
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    (state / "schedules.json").write_text(json.dumps(dict.fromkeys(keys, since)))
