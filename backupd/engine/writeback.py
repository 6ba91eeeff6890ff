"""What a job extracts begins to be written to disk meanwhile, so that the flush at the end finds little left to do.

The kernel begins by itself when a tenth of the memory is waiting (`vm.dirty_background_ratio`), or after half a minute.
One flush at a time, and none after one that took longer than `LONG_SECONDS`: then the disk is what a restore waits for,
and a process within a flush can't be killed. A disk that did not take something fails the job: each error is told to
the first who looks, and nobody who flushes later would hear of it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading
import time

from backupd.engine.confine import libc

PAUSE_SECONDS = 0.5
LONG_SECONDS = 1

NOT_ON_DISK = "what was extracted did not reach the disk"
LOST = 7
"""What the shell's loop ends with when the disk did not take something: its `$!` is waited for."""

# There is no such call, or a filter of system calls refuses it.
_NO_LOSS = (0, errno.ENOSYS, errno.EPERM)

# For a shell that goes on with the job, whose streams it leaves alone, and which kills it in the end, as `$!`. It may
# not be a child of tar: BusyBox's waits for all of its children, and fails if one of them does. Where nothing can be
# written, a `sync` that knows no files has something to say: there is no more to do for it.
WRITE_BACK = f"""
{{
    [ -z "$(sync -f /proc 2>&1)" ] || exit 0
    while sleep {PAUSE_SECONDS} && kill -0 $$ && read -r before _ </proc/uptime; do
        sync -f . || exit {LOST}
        read -r after _ </proc/uptime || exit 0
        [ $((${{after%.*}} - ${{before%.*}})) -le {LONG_SECONDS} ] || exit 0
    done
}} </dev/null >/dev/null 2>&1 3<&- &
"""


class WriteBack:
    """Flushes the file system of a directory from time to time, in a thread, until `finish` or `stop`.

    The descriptor need not stay open.
    """

    def __init__(self, directory: int) -> None:
        self._directory = os.dup(directory)
        _error_of_flush(self._directory)  # a loss of before is told once, to whoever asks first
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="write-back", daemon=True)
        self._lost = 0
        self._finishing = False
        self._thread.start()

    def stop(self) -> None:
        """Begin no further flush, and do not wait for one."""
        self._stopped.set()

    def finish(self) -> None:
        """Flush once more; OSError if something that was written since the beginning is lost."""
        self._finishing = True
        self.stop()
        self._thread.join()
        if self._lost:
            raise OSError(self._lost, os.strerror(self._lost))

    def _run(self) -> None:
        flushing = True
        try:
            while not self._stopped.wait(PAUSE_SECONDS if flushing else None):
                began = time.monotonic()
                flushing = self._flush() and time.monotonic() - began <= LONG_SECONDS
            if self._finishing:
                self._flush()
        finally:
            os.close(self._directory)

    def _flush(self) -> bool:
        number = _error_of_flush(self._directory)
        if number not in _NO_LOSS:  # EIO mostly; what else there is, is the driver's
            self._lost = number
        return number == 0


def _error_of_flush(descriptor: int) -> int:
    """The number of syncfs(2)'s error, ENOSYS where the C library has no such call; 0 if there is none."""
    flush = getattr(libc(), "syncfs", None)
    if flush is None:
        return errno.ENOSYS
    return 0 if flush(descriptor) == 0 else ctypes.get_errno()
