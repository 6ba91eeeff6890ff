"""The processes that carry out runs, as the daemon sees them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from threading import Lock

from backupd.daemon.messages import Reply, Task, decode, send
from backupd.errors import BackupdError, Interrupted

_COMMAND = (sys.executable, "-m", "backupd.daemon.child")


class Workers:
    """Processes, one a run. Thread-safe.

    Each is a group of its own, so that Ctrl-C on a terminal reaches the daemon alone, which decides.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._aborting = False

    def carry_out(self, task: Task) -> Reply:
        """Wait for a process that does it; BackupdError if it dies without a word."""
        with self._lock:
            if self._aborting:
                raise Interrupted("not begun: the daemon stops")
            process = subprocess.Popen(
                _COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0, bufsize=-1
            )
            self._processes[task.run.id] = process
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            with process.stdin, process.stdout:
                with suppress(BrokenPipeError):  # it has died: what follows says how
                    send(task, process.stdin)
                data = process.stdout.read()
                code = process.wait()
        finally:
            with self._lock:
                del self._processes[task.run.id]
        reply = decode(data)
        if reply is None and self._aborting:
            raise Interrupted("interrupted: the daemon stops")
        if reply is None:
            raise BackupdError(f"the run's process died: {_how(code)}", hint="was there enough memory?")
        return reply

    def abort(self) -> None:
        """Tell all to stop and undo what they have begun; none begins any more."""
        with self._lock:
            self._aborting = True
            for process in self._processes.values():
                process.terminate()

    def kill(self) -> None:
        """End all that still run, and what they have started: the next start recovers."""
        with self._lock:
            for process in self._processes.values():
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)


def _how(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
