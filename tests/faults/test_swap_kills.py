"""`swap.sh` is killed at every act that changes something, recovered, and killed while it recovers."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from backupd.recover import recover
from backupd.stores.local import LocalStore
from tests.support.killer import Tools, When, have_busybox
from tests.support.runtime import Place, fill
from tools.fingerprint import Facts, differences, fingerprint

Print = dict[bytes, Facts]
UNITS = ("dir/x", "a", "missing/n")
STAGED = Path(".backupd-restore-test-1/tree")


def old_tree(root: Path) -> Path:
    (root / "dir" / "sub").mkdir(parents=True)
    for name in ("a", "dir/x", "dir/y", "dir/sub/z", ".hidden", "-rf", "only old"):
        (root / name).write_text(f"old {name}")
    (root / "link").symlink_to("a")
    (root / "dir").chmod(0o2750)
    return dated(root, 1_500_000_000)


def new_tree(root: Path) -> Path:
    (root / "dir").mkdir(parents=True)
    (root / "missing").mkdir(mode=0o711)
    for name in ("a", "dir/x", "missing/n", ".hidden", "-rf"):
        (root / name).write_text(f"new {name}")
    (root / "link").symlink_to("dir/x")
    root.chmod(0o711)
    return dated(root, 1_600_000_000)


def dated(root: Path, seconds: int) -> Path:
    """Whole seconds: BusyBox cannot set others."""
    for path in (*root.rglob("*"), root):
        os.utime(path, (seconds, seconds), follow_symlinks=False)
    return root


class Case:
    """A way through the script; `work` says what is to come out when nothing is killed."""

    def __init__(self, base: Path, tools: Tools, *, units: bool, last: str, journaled: bool = False) -> None:
        self.base = base
        self.tools = tools
        self.units = units
        self.last = last
        self.journaled = journaled
        self.acts_before_last = 0
        self.new = new_tree(base / "new")
        self.pristine = old_tree(base / "pristine")
        self.old_print = fingerprint(self.pristine)
        self.verbs: list[list[str]] = [["prepare"], ["ready", *(UNITS if units else ())], ["swap"], [last]]

    def volume(self, number: object) -> Path:
        target = self.base / f"volume-{number}"
        shutil.copytree(self.pristine, target, symlinks=True)
        return target

    def again(self, killed: str) -> str:
        """What recovers: the journal knows whether the swap was decided, which comes after `ready`."""
        if not self.journaled:
            return "recover"
        return "undo" if killed in {"prepare", "ready"} else "complete"

    def run(self, volume: Path, kill_at: int, when: When) -> str | None:
        """Run all verbs; the one that was killed, if any was."""
        for verb, *arguments in self.verbs:
            if verb == self.last:
                self.acts_before_last = self.tools.acts
            if self.tools.run(volume, verb, *arguments, kill_at=kill_at, when=when) is None:
                return verb
            if verb == "prepare":
                shutil.copytree(self.new, volume / STAGED, symlinks=True, dirs_exist_ok=True)
        return None

    def uninterrupted(self) -> tuple[int, Print]:
        self.tools.reset()
        volume = self.volume("whole")
        assert self.run(volume, 0, "after") is None
        result = fingerprint(volume)
        if self.last == "undo":
            assert differences(self.old_print, result) == []
        elif not self.units:
            assert differences(fingerprint(self.new), result) == []
        return self.tools.acts, result

    def new_print(self, result: Print) -> Print:
        if self.last == "finish":
            return result
        return Case(self.base / "other", self.tools, units=self.units, last="finish").uninterrupted()[1]


def timeless(tree: Print, paths: tuple[bytes, ...]) -> Print:
    return {
        path: {name: value for name, value in facts.items() if name != "mtime" or path not in paths}
        for path, facts in tree.items()
    }


def check_every_kill(make: Callable[[Path], Case], base: Path, when: When) -> None:
    """Two at a time, each with tools and trees of its own."""
    cases = []
    for part in ("one", "other"):
        (base / part).mkdir()
        cases.append(make(base / part))
    (acts, result), _ = [case.uninterrupted() for case in cases]
    new = cases[0].new_print(result)
    case = cases[0]
    # Up to `undo` all is as it is up to `finish`.
    first = case.acts_before_last + 1 if case.last == "undo" else 1
    assert acts - first > 5
    seed = random.randrange(10**6)
    print(f"seed {seed}, acts {first} to {acts}")

    def half(which: int) -> list[Outcome]:
        dice = random.Random(seed + which)
        return [check_kill(cases[which], number, when, new, dice) for number in range(first + which, acts + 1, 2)]

    with ThreadPoolExecutor(2) as pool:
        outcomes = [outcome for found in pool.map(half, (0, 1)) for outcome in found]
    seen = {(outcome.killed, outcome.holds) for outcome in outcomes}
    if case.last == "finish":
        assert ("prepare", "old") in seen
        assert ("finish", "new") in seen
        assert ("finish", "old") not in seen
        assert not case.journaled or ("swap", "old") not in seen
    else:
        assert ("undo", "new") not in seen
    # Between an entry of ours coming or going and `touch` (see swap.sh); the kills of `recover` add to those.
    assert sum(outcome.lost_time for outcome in outcomes) <= acts // 3


class Outcome(NamedTuple):
    """Which verb was killed, what the volume holds after recovering, and whether its root lost its time."""

    killed: str
    holds: str
    lost_time: bool


def check_kill(case: Case, number: int, when: When, new: Print, dice: random.Random) -> Outcome:
    volume = case.volume(number)
    case.tools.reset()
    killed = case.run(volume, number, when)
    assert killed is not None
    again = case.again(killed)
    for _ in range(2):
        case.tools.reset()
        case.tools.run(volume, again, kill_at=dice.randrange(1, 20), when=dice.choice(("before", "after")))
    for _ in range(2):
        said = case.tools.run(volume, again)
        after = fingerprint(volume)
        # The directories that units were exchanged in are newly changed, as they should be.
        exchanged = (b".", b"dir") if case.units else (b".",)
        is_old = timeless(after, (b".",)) == timeless(case.old_print, (b".",))
        is_new = timeless(after, exchanged) == timeless(new, exchanged)
        assert is_old != is_new, (number, killed, differences(case.old_print, after), differences(new, after))
        assert said is not None
    expected = case.old_print if is_old else new
    lost = (is_old or not case.units) and after[b"."]["mtime"] != expected[b"."]["mtime"]
    shutil.rmtree(volume)
    return Outcome(killed, "old" if is_old else "new", lost)


@pytest.fixture(scope="module")
def busybox() -> str:
    found = have_busybox()
    if found is None:
        pytest.skip("no busybox here, and busybox-static could not be installed")
    return found


@pytest.mark.parametrize("last", ["finish", "undo"])
@pytest.mark.parametrize("units", [False, True], ids=["whole", "units"])
def test_gnu(tmp_path: Path, units: bool, last: str) -> None:
    check_every_kill(lambda base: Case(base, Tools(base / "bin"), units=units, last=last), tmp_path, "after")


def test_gnu_before_each_act_by_the_journal(tmp_path: Path) -> None:
    def make(base: Path) -> Case:
        return Case(base, Tools(base / "bin"), units=False, last="finish", journaled=True)

    check_every_kill(make, tmp_path, "before")


@pytest.mark.parametrize(("units", "last"), [(False, "finish"), (True, "undo")])
def test_busybox(tmp_path: Path, busybox: str, units: bool, last: str) -> None:
    check_every_kill(lambda base: Case(base, Tools(base / "bin", busybox), units=units, last=last), tmp_path, "after")


def restoring(base: Path) -> None:
    """What the other process does."""
    place = Place(base, stores=[LocalStore("local", base / "store")])
    place.restore(place.repository().resolve("latest"), safety_snapshot=False)


def killed_restore(base: Path, delay: float) -> bool:
    """Whether the process was still at it."""
    command = "import sys, pathlib, tests.faults.test_swap_kills as t; t.restoring(pathlib.Path(sys.argv[1]))"
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", command, str(base)], cwd=root) as process:
        while not any((base / "volumes" / "data").glob(".backupd-*")):
            if process.poll() is not None:
                return False
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        return process.wait() == -signal.SIGKILL


def test_whole_process(tmp_path: Path) -> None:
    """SIGKILL takes Python alone: its tar and its script run on while the next process recovers."""
    place = Place(tmp_path, stores=[LocalStore("local", tmp_path / "store")])
    fill(place.root())
    (place.root() / "big").write_bytes(os.urandom(8 << 20))
    new = timeless(fingerprint(place.root()), (b".",))
    place.backup()
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    dice = random.Random(seed)
    killed = 0
    for _ in range(10):
        (place.root() / "text").write_text("changed")
        (place.root() / "extra").write_text("extra")
        old = timeless(fingerprint(place.root()), (b".",))
        killed += killed_restore(tmp_path, dice.random() * 0.6)
        recover(place.runtime, [place.spec()])
        after = timeless(fingerprint(place.root()), (b".",))
        assert after in (old, new), (differences(old, after), differences(new, after))
        assert recover(place.runtime, [place.spec()]) == []
    assert killed
