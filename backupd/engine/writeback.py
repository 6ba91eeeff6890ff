"""What a job extracts begins to be written to disk meanwhile, so that the flush at the end finds little left to do.

The kernel begins by itself when a tenth of the memory is waiting (`vm.dirty_background_ratio`), or after half a minute.
One flush at a time, and none after one that took longer than `LONG_SECONDS`: then the disk is what a restore waits for,
and a process within a flush can't be killed. Whether any of this succeeds is nobody's concern: what has to be on disk
is flushed by whoever needs it there.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from functools import cache

PAUSE_SECONDS = 0.5
LONG_SECONDS = 1

# For a shell that goes on with the job, whose streams it leaves alone, and which kills it in the end, as `$!`. It may
# not be a child of tar: BusyBox's waits for all of its children, and fails if one of them does. A `sync` that knows no
# files flushes all file systems and says that it knows none: once is enough.
WRITE_BACK = f"""
while sleep {PAUSE_SECONDS} && kill -0 $$ && read -r before _ </proc/uptime; do
    said=$(sync -f . 2>&1) && [ -z "$said" ] && read -r after _ </proc/uptime || break
    [ $((${{after%.*}} - ${{before%.*}})) -le {LONG_SECONDS} ] || break
done </dev/null >/dev/null 2>&1 3<&- &
"""


class WriteBack:
    """Flushes the file system of a directory from time to time, in a thread, until `stop`, which does not wait for it.

    The descriptor need not stay open.
    """

    def __init__(self, directory: int) -> None:
        self._directory = os.dup(directory)
        self._stopped = threading.Event()
        threading.Thread(target=self._run, name="write-back", daemon=True).start()

    def stop(self) -> None:
        """Begin no further flush. May be called twice."""
        self._stopped.set()

    def _run(self) -> None:
        try:
            while not self._stopped.wait(PAUSE_SECONDS):
                began = time.monotonic()
                if not _flushed(self._directory) or time.monotonic() - began > LONG_SECONDS:
                    break
        finally:
            os.close(self._directory)


def _flushed(descriptor: int) -> bool:
    """False also where the C library has no syncfs(2)."""
    flush = getattr(_libc(), "syncfs", None)
    return flush is not None and flush(descriptor) == 0


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)
