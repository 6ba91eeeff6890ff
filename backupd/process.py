"""This process, and whether one that is known from a file still lives. A pid alone is given again."""

from __future__ import annotations

import os
import sys
from pathlib import Path

_SWITCH_SECONDS = 0.001
_STARTED_FIELD = 22 - 3  # of /proc/PID/stat, see proc(5), counted behind the command's closing parenthesis


def let_threads_alternate() -> None:
    """Let Python's threads take turns every millisecond, not every five.

    In five, tar fills the mebibyte of its pipe twice over while the thread that empties it waits for its turn.
    """
    sys.setswitchinterval(_SWITCH_SECONDS)


def boot_id() -> str:
    """Of this machine's start; empty where the kernel does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def this_process() -> str:
    """This process, as nothing else on this machine will ever be called: `pid:start in ticks:boot`."""
    return f"{os.getpid()}:{_started(os.getpid())}:{boot_id()}"


def alive(process: str) -> bool:
    """Whether the process that `this_process` told of lives, in the same PID namespace."""
    pid, started, boot = process.split(":")
    return boot == boot_id() and started == _started(int(pid)) != ""


def _started(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[_STARTED_FIELD]
    except (OSError, IndexError):
        return ""
