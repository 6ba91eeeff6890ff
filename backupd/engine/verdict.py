"""What a tar job said, and whether it ended well.

GNU tar ends a backup with 1 when files changed, shrank or vanished while it read them, with 2 when something could
not be read. BusyBox ends with 1 for everything, so there the lines decide. Extracting, anything but 0 is a failure.
Extended attributes that could not be set leave GNU's exit status at 0: they are warnings, because in a disaster a
volume without them is worth more than none, and a file system that cannot hold them would refuse every restore.
"""

from __future__ import annotations

import re
import signal
from typing import Literal

from backupd.errors import SourceError, VolumeFull
from backupd.model import TarFlavour, TarReport

Direction = Literal["out", "in"]

KEPT_WARNINGS = 20
KEPT_ERRORS = 5
LINE_BYTES = 4096
SIGNALLED = 128

_MEMORY_HINT = "raise the memory limit of the helper containers"

_PREFIX = re.compile(r"^(?:\S*/)?tar: ")
_NOISE = re.compile(
    r"Exiting with failure status|Error is not recoverable|error exit delayed|"
    r"^Removing leading |^Substituting `\.' for empty member name"
)
_MOVED = re.compile(
    r": file changed as we read it$|: File removed before we read it$|"
    r": File shrank by \d+ bytes?; padding with zeros$"
)
_HARMLESS = re.compile(r"socket ignored$|door ignored$|: Warning: |^Warning: |Cannot set '.*' extended attribute")
_FULL = re.compile(r"No space left on device|Disk quota exceeded")
_BUSYBOX_VANISHED = re.compile(r": No such file or directory$")


class Complaints:
    """Takes in a job's stderr, of any length, in bounded memory: counts all of it, keeps what people will read."""

    def __init__(self, flavour: TarFlavour, direction: Direction) -> None:
        self._flavour = flavour
        self._direction = direction
        self._partial = b""
        self.moved_count = 0
        self.warning_count = 0
        self.warnings: list[str] = []
        self.error_count = 0
        self.errors: list[str] = []
        self.last_line = ""

    def feed(self, data: bytes) -> None:
        """More of stderr, cut anywhere."""
        *lines, rest = (self._partial + data).split(b"\n")
        self._partial = rest[:LINE_BYTES]
        for line in lines:
            self._take(line)

    def close(self) -> None:
        """The last line may lack its end."""
        if self._partial:
            self._take(self._partial)
        self._partial = b""

    def _take(self, raw: bytes) -> None:
        line = _PREFIX.sub("", raw[:LINE_BYTES].decode(errors="backslashreplace").strip())
        if not line or _NOISE.search(line):
            return
        self.last_line = line
        if self._is_moved(line) or _HARMLESS.search(line):
            self.moved_count += self._is_moved(line)
            self.warning_count += 1
            if len(self.warnings) < KEPT_WARNINGS:
                self.warnings.append(line.removeprefix("./"))
        else:
            self.error_count += 1
            if len(self.errors) < KEPT_ERRORS:
                self.errors.append(line.removeprefix("./"))

    def _is_moved(self, line: str) -> bool:
        if self._direction == "in":
            return False
        pattern = _MOVED if self._flavour == "gnu" else _BUSYBOX_VANISHED
        return pattern.search(line) is not None


def judge(what: str, complaints: Complaints, exit_code: int, *, out_of_memory: bool = False) -> TarReport:
    """The report of a job that ended well; SourceError, beginning with `what`, for one that did not.

    `complaints` belongs to the same job and is closed. A code over 128 is 128 plus the signal that ended the process.
    """
    if exit_code == 0 or _only_moved(complaints, exit_code):
        texts = (*complaints.warnings, *complaints.errors)[:KEPT_WARNINGS]
        return TarReport(complaints.warning_count + complaints.error_count, texts, complaints.moved_count)
    refuse_death(what, exit_code, out_of_memory=out_of_memory)
    reason = complaints.errors[0] if complaints.errors else complaints.last_line or "tar did not say why"
    more = f" (and {complaints.error_count - 1} more)" if complaints.error_count > 1 else ""
    full = next((line for line in complaints.errors if _FULL.search(line)), reason)
    raise failure(what, f"{full}{more} (exit code {exit_code})")


def failure(what: str, reason: str) -> SourceError:
    """The error of a job or script that failed, by its last words: VolumeFull where these speak of that."""
    return (VolumeFull if _FULL.search(reason) else SourceError)(f"{what}: {reason}")


def refuse_death(what: str, exit_code: int, *, out_of_memory: bool = False) -> None:
    """SourceError if a signal ended the process. The engine may learn too late that it was for want of memory."""
    if exit_code <= SIGNALLED:
        return
    if out_of_memory:
        raise SourceError(f"{what}: it ran out of memory and was killed", hint=_MEMORY_HINT)
    number = exit_code - SIGNALLED
    hint = f"if nobody killed it, memory was short: {_MEMORY_HINT}" if number == signal.SIGKILL else None
    raise SourceError(f"{what}: it was killed by signal {number}", hint=hint)


def _only_moved(complaints: Complaints, exit_code: int) -> bool:
    return exit_code == 1 and complaints.moved_count > 0 and complaints.error_count == 0
