"""A time zone in which a minute ends soon: nobody has to wait long for what fires on the minute, by the real clock."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import TZPATH

NAME = "Test/Soon"


@dataclass(frozen=True)
class Soon:
    """For processes with this `environment` there is a zone NAME, which is some seconds ahead of UTC."""

    directory: Path
    ahead: timedelta

    @property
    def environment(self) -> dict[str, str]:
        return {"PYTHONTZPATH": ":".join([str(self.directory), *TZPATH])}


def soon(directory: Path, seconds: int) -> Soon:
    """A zone in which a full minute is that far off from now."""
    ahead = timedelta(seconds=60 - seconds - datetime.now(UTC).second)
    # TZif, RFC 8536, version 1: no transitions, one type of local time, which is called TST
    header = b"TZif" + bytes(16) + struct.pack(">6I", 0, 0, 0, 0, 1, 4)
    path = directory / NAME
    path.parent.mkdir(parents=True)
    path.write_bytes(header + struct.pack(">iBB", int(ahead.total_seconds()), 0, 0) + b"TST\0")
    return Soon(directory, ahead)
