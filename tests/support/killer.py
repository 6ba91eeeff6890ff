"""Runs `swap.sh` with tools that kill the whole script, themselves included, before or after their n-th act."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal

from tests.support.apt import NotInstallable, install

# What changes a volume. Between two of these a kill makes no difference but in what the shell itself writes.
ACTS = ("mv", "rm", "mkdir", "rmdir", "touch", "tar", "chown", "chmod")
LOOKS = ("cat", "df", "find", "flock", "head", "sh", "sleep", "stat", "tail")

# Of the two tars of a pipe, only the one that extracts: they would count at the same time.
_WRAPPER = """#!/bin/sh
case "{name} $*" in
tar*-xpf*) ;;
tar*) exec {real} "$@" ;;
esac
read n <"{counter}" || n=0
n=$((n + 1))
echo $n >"{counter}"
if [ $n = "$KILL_AT" ]; then
    if [ "$KILL_WHEN" = after ]; then {real} "$@"; fi
    kill -9 0
fi
exec {real} "$@"
"""

When = Literal["before", "after"]


@dataclass
class Tools:
    """A PATH with nothing but wrapped tools. `busybox` is the program whose applets they are; None means this system's.

    The shell is this system's in any case: BusyBox's runs its own applets, whatever the PATH.
    """

    directory: Path
    busybox: str | None = None

    def __post_init__(self) -> None:
        self.counter = self.directory / "count"
        self.directory.mkdir()
        for name in (*ACTS, *LOOKS):
            real = shutil.which(name)
            if self.busybox and name != "sh":
                real = None if name == "flock" else f"{self.busybox} {name}"
            if real is not None and name in ACTS:
                self._add(name, _WRAPPER.format(name=name, counter=self.counter, real=real))
            elif real is not None:
                self._add(name, f'#!/bin/sh\nexec {real} "$@"\n')
        self._add("sync", "#!/bin/sh\n:\n")

    def _add(self, name: str, text: str) -> None:
        path = self.directory / name
        path.write_text(text)
        path.chmod(0o755)

    def run(self, volume: Path, verb: str, *arguments: str, kill_at: int = 0, when: When = "after") -> str | None:
        """What the script printed, or None if it was killed. AssertionError if it failed."""
        script = resources.files("backupd.restore").joinpath("swap.sh").read_text()
        process = subprocess.run(
            ["/bin/sh", "-c", script, "sh", "test-1", verb, *arguments],
            cwd=volume,
            env={"PATH": str(self.directory), "KILL_AT": str(kill_at), "KILL_WHEN": when, "LC_ALL": "C"},
            process_group=0,
            capture_output=True,
            text=True,
        )
        if process.returncode == -signal.SIGKILL:
            return None
        assert process.returncode == 0, process.stderr
        return process.stdout

    def reset(self) -> None:
        self.counter.write_text("0\n")

    @property
    def acts(self) -> int:
        return int(self.counter.read_text())


def have_busybox() -> str | None:
    """The path of a busybox, installed if that is possible."""
    with contextlib.suppress(NotInstallable):
        install("busybox-static", programs=("busybox",))
    return shutil.which("busybox")
