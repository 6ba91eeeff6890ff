"""A process that stands still and goes on, as one whose machine is suspended."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import Popen

V1 = Path("/sys/fs/cgroup/freezer")
V2 = Path("/sys/fs/cgroup")


@contextmanager
def stopped(process: Popen[str]) -> Iterator[None]:
    """By SIGSTOP, the process alone."""
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


@contextmanager
def frozen(process: Popen[str]) -> Iterator[None]:
    """By the kernel's freezer, which the process can't see. It takes root."""
    root, switch, on, off = (
        (V1, "freezer.state", "FROZEN", "THAWED") if V1.is_dir() else (V2, "cgroup.freeze", "1", "0")
    )
    found = re.search(r":freezer:(.*)" if root == V1 else r"^0::(.*)", _groups(process), re.MULTILINE)
    assert found is not None
    home, group = root / found[1].lstrip("/"), root / f"backupd-test-{process.pid}"
    group.mkdir()
    try:
        (group / "cgroup.procs").write_text(str(process.pid))
        (group / switch).write_text(on)
        try:
            yield
        finally:
            (group / switch).write_text(off)
        (home / "cgroup.procs").write_text(str(process.pid))
    finally:
        _remove(group)


def _groups(process: Popen[str]) -> str:
    return Path(f"/proc/{process.pid}/cgroup").read_text()


def _remove(group: Path) -> None:
    """As soon as children that were begun in it have ended."""
    deadline = time.monotonic() + 60
    while group.exists():
        with suppress(OSError):
            group.rmdir()
        assert time.monotonic() < deadline, f"{group} is in use"
        time.sleep(0.1)
