"""Has the server's own checker look at the file that it saved."""

from __future__ import annotations

import re
from calendar import timegm
from time import strptime

from msgspec import Struct

from backupd.archive import Member
from backupd.consistency.redis_server import HINT, RedisServer
from backupd.errors import SourceError
from backupd.model import Volume

# What it is that is checked goes first: the server may put another file in its place.
_SCRIPT = """
for tool in redis-check-rdb valkey-check-rdb keydb-check-rdb; do
    command -v "$tool" >/dev/null || continue
    exec <"$1" || exit 3
    stat -L -c '%s %y' /proc/self/fd/0 || exit 4
    "$tool" /proc/self/fd/0
    exit
done
exit 5
"""
_NO_FILE, _NO_STAT, _NO_CHECKER = 3, 4, 5
_KILLED = 128
_IDENTITY = re.compile(r"^(\d+) (\d+-\d+-\d+ \d+:\d+:\d+)(?:\.(\d{9}))?")


class Checked(Struct, frozen=True):
    """The file that was checked: size, time of its last change in nanoseconds, and how exact that is."""

    size: int
    mtime: int
    exact: bool
    remark: str = ""


def check(server: RedisServer, volume: Volume, path: str) -> Checked | None:
    """Check the saved file, in a helper of the service's own image; SourceError if the checker refuses it.

    None where the image has no checker. The server is not burdened: neither its memory nor its limits are used.
    """
    said = server.services.examine(server.service, volume, _SCRIPT, [path])
    if said.exit_code in {_NO_STAT, _NO_CHECKER}:
        return None
    if said.exit_code == _NO_FILE:
        raise SourceError(f"{server.service.name} says that it saved {path}, but {volume} has no such file", hint=HINT)
    found = _IDENTITY.match(said.stdout)
    if found is None:
        return None
    seconds = timegm(strptime(found[2], "%Y-%m-%d %H:%M:%S"))
    mtime = seconds * 1_000_000_000 + int(found[3] or 0)
    if said.exit_code == 0:
        return Checked(int(found[1]), mtime, found[3] is not None)
    if said.exit_code > _KILLED:
        return Checked(int(found[1]), mtime, found[3] is not None, f"{path}: could not be checked: memory was short")
    lines = (said.stdout + said.stderr).strip().splitlines()
    raise SourceError(f"{server.service.name}: the file that it saved is not right: {lines[-1] if lines else ''}")


def is_of(checked: Checked, member: Member) -> bool:
    """Whether an archived file is the one that was checked. Not every tar knows fractions of seconds."""
    if checked.size != member.size:
        return False
    if checked.exact and member.mtime % 1_000_000_000:
        return checked.mtime == member.mtime
    return checked.mtime // 1_000_000_000 == member.mtime // 1_000_000_000
