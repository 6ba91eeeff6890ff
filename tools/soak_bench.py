"""What a soak works with: volumes, containers, and rounds of snapshot, restore and examination."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import yaml

from tests.support.cli import Cli
from tests.support.images import Images

LABELS = {"backupd.soak": uuid.uuid4().hex}


class Subject(Protocol):
    """A service that is written to all the time, though maybe not while a copy of it is examined."""

    def press(self) -> None:
        """See to it that the service has much to do for the next seconds, if it has not in any case."""

    def disturb(self, number: int) -> None:
        """Have the service do what makes copying hard, if it does not do so by itself."""

    def acknowledged(self) -> int:
        """How many commits the writer knows to have been made."""

    def longest_gap(self, begin: float, end: float) -> float:
        """Seconds between two commits of the writer, of those gaps that touch the time given."""

    def examine(self, copy: str, acknowledged: int) -> int:
        """Start the service on a restored volume and look at all of it; how many of so many commits are missing.

        Raises AssertionError, which says what is wrong.
        """


@dataclass(frozen=True)
class Round:
    """`trouble` says what was wrong with the restored service, empty: nothing. `lost` are commits from before.

    `idle_gap_seconds` is the longest gap of a time as long (10 s at most) right before, without a snapshot.
    """

    trouble: str
    lost: int
    gap_seconds: float
    idle_gap_seconds: float
    backup_seconds: float
    stood_seconds: float


@dataclass
class Bench:
    """What a service's function works with; everything that it makes is removed."""

    client: Any
    images: Images
    url: str
    scratch: Path
    mebibytes: int

    def volume(self) -> str:
        return str(self.client.volumes.create(f"backupd-soak-{uuid.uuid4().hex[:12]}", labels=LABELS).name)

    def root(self, volume: str) -> Path:
        return Path(self.client.volumes.get(volume).attrs["Mountpoint"])

    def remove_volume(self, name: str) -> None:
        self.client.volumes.get(name).remove(force=True)

    @contextmanager
    def containers(self) -> Iterator[Containers]:
        """Starts containers; all are removed with the block."""
        with ExitStack() as stack:
            yield Containers(self.client, stack)

    def cli(self, volume: str, consistency: str) -> Cli:
        """A command line that backs the volume up; empty: how to is found out."""
        place = Path(tempfile.mkdtemp(dir=self.scratch))
        config = {
            "state_dir": str(place / "state"),
            "docker": {"host": self.url, "helper_image": self.images.tag("helper")},
            "stores": {"local": {"type": "local", "path": str(place / "backups")}},
            "volumes": {"data": {"volume": volume} | ({"consistency": consistency} if consistency else {})},
        }
        (place / "backupd.yaml").write_text(yaml.safe_dump(config))
        return Cli(place / "backupd.yaml")

    def rounds(self, subject: Subject, cli: Cli, count: int) -> Iterator[Round]:
        idle = 1.0
        for number in range(count):
            subject.press()
            quiet = time.time()
            time.sleep(min(idle, 10))
            idle_gap = subject.longest_gap(quiet, time.time())
            subject.press()
            subject.disturb(number)
            acknowledged, began = subject.acknowledged(), time.time()
            archive = cli.json("backup")["snapshot"]["archives"][0]
            ended = time.time()
            idle = ended - began
            gap = subject.longest_gap(began, ended)
            copy = self.volume()
            cli.run("restore", "latest", "data", "--into", copy, "--yes")
            lost, trouble = 0, ""
            try:
                lost = subject.examine(copy, acknowledged)
            except AssertionError as exc:
                trouble = " ".join(str(exc).split())[:200] or "unsound"
            self.remove_volume(copy)
            yield Round(trouble, lost, gap, idle_gap, idle, max(archive["downtime"].values(), default=0.0))


@dataclass(frozen=True)
class Containers:
    """Called as the fixture `run_container` is."""

    client: Any
    stack: ExitStack

    def __call__(self, image: str, command: Sequence[str], **rest: Any) -> Any:
        started = self.client.containers.run(image, list(command), detach=True, labels=LABELS, **rest)
        self.stack.callback(started.remove, force=True, v=True)
        return started


def lines_since(container: Any, moment: float) -> list[list[str]]:
    """The words of every whole line that a writer has said since a little before a moment."""
    text = container.logs(since=moment - 2).decode()
    return [line.split() for line in text.splitlines(keepends=True) if line.endswith("\n")]


def gap_of(times: Sequence[float], begin: float, end: float) -> float:
    """The longest time between two commits, of those that touch the time from `begin` to `end`."""
    pairs = itertools.pairwise(times)
    return max((after - before for before, after in pairs if after >= begin and before <= end), default=end - begin)


@contextlib.contextmanager
def unsound_as_assertion(*kinds: type[Exception]) -> Iterator[None]:
    """What a library raises over damaged data, as what `examine` raises."""
    try:
        yield
    except kinds as exc:
        raise AssertionError(str(exc)) from exc
