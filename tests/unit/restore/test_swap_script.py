"""swap.sh where the disk has lost something, and where its own state cannot be read."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

import backupd.restore

SCRIPT = (Path(backupd.restore.__path__[0]) / "swap.sh").read_text()
STAGE = ".backupd-restore-1"
OLD = ".backupd-old-1"
SYNC = """
case "$*" in
"-f /proc") ;;
"-f .") [ -f "$LOSING" ] || exit 0; echo "sync: error syncing '.': Input/output error" >&2; exit 1 ;;
esac
"""
"""Knows files. It tells of a loss while there is a file of the name in LOSING."""


class Disk:
    """A volume with old data, and new ones in the stage."""

    def __init__(self, base: Path) -> None:
        self.volume = base / "volume"
        self.volume.mkdir()
        (self.volume / "data").write_text("old")
        self.losing = base / "losing"
        programs = base / "programs"
        programs.mkdir()
        (programs / "sync").write_text(f"#!/bin/sh\n{SYNC}")
        (programs / "sync").chmod(0o755)
        self.environment = {"PATH": f"{programs}:{os.environ['PATH']}", "LOSING": str(self.losing)}

    def run(self, verb: str, *, loses: bool = False) -> subprocess.CompletedProcess[str]:
        if loses:
            self.losing.touch()
        command = ["sh", "-c", SCRIPT, "sh", "1", verb]
        done = subprocess.run(
            command, cwd=self.volume, env=self.environment, capture_output=True, text=True, check=False
        )
        self.losing.unlink(missing_ok=True)
        return done

    def stage(self, upto: str) -> None:
        for verb in ("prepare", "ready", "swap"):
            done = self.run(verb)
            assert done.returncode == 0, done.stderr
            if verb == "prepare":
                (self.volume / STAGE / "tree/data").write_text("new")
            if verb == upto:
                return

    @property
    def data(self) -> str:
        return (self.volume / "data").read_text()

    @property
    def left(self) -> list[str]:
        return sorted(path.name for path in self.volume.iterdir() if path.name != "data")


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path)


def test_what_was_lost_before_is_not_ours(disk: Disk) -> None:
    assert disk.run("prepare", loses=True).returncode == 0
    assert disk.left == [OLD, STAGE]


@pytest.mark.parametrize(("done", "verb"), [("prepare", "ready"), ("ready", "swap")])
def test_what_is_lost_stops_it_and_the_old_data_come_back(disk: Disk, done: str, verb: str) -> None:
    disk.stage(done)
    failed = disk.run(verb, loses=True)
    assert failed.returncode == 1
    assert failed.stderr.endswith("did not reach the disk: sync: error syncing '.': Input/output error\n")
    assert disk.run("undo", loses=True).returncode == 0, "the way back stops for no loss"
    assert (disk.data, disk.left) == ("old", [])


def test_the_end_stops_for_no_loss(disk: Disk) -> None:
    disk.stage("swap")
    assert disk.run("finish", loses=True).returncode == 0
    assert (disk.data, disk.left) == ("new", [])


def test_at_the_last_moment(disk: Disk) -> None:
    """Everything is exchanged, and the old data are still there."""
    disk.stage("swap")
    (disk.volume / STAGE / "state").write_text("moving-new\n")
    assert disk.run("swap", loses=True).returncode == 1
    assert disk.run("undo").returncode == 0
    assert (disk.data, disk.left) == ("old", [])


@pytest.mark.parametrize("state", ["", "undoing-", "moving", "something else\n"])
@pytest.mark.parametrize("verb", ["undo", "complete", "recover"])
def test_a_state_that_says_nothing(disk: Disk, state: str, verb: str) -> None:
    """Whatever it was: no data are removed."""
    disk.stage("swap")
    (disk.volume / STAGE / "state").write_text(state)
    failed = disk.run(verb)
    assert failed.returncode == 1
    assert f"cannot tell from {STAGE}/state how far it has got" in failed.stderr
    assert (disk.volume / OLD / "data").read_text() == "old"
    assert disk.data == "new"
