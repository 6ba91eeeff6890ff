"""The machine that backupd runs on: its state directory, its keys, its clock."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from backupd.doctor.result import Level, Result
from backupd.model import MIB
from backupd.signingkey import OwnKey

_LITTLE = 512 * MIB
_LITTLE_PERCENT = 5

_SKEW_NOTED = timedelta(seconds=30)
_SKEW_REFUSED = timedelta(minutes=10)
"""S3 refuses requests that are off by 15 minutes (RequestTimeTooSkewed)."""


def look_at_state(state: Path) -> Iterator[Result]:
    """Permissions and room of the state directory. It is made by the first command that needs it."""
    subject = f"state_dir {state}"
    if not state.exists():
        parent = next(directory for directory in state.parents if directory.exists())
        if os.access(parent, os.W_OK | os.X_OK):
            yield Result("note", subject, "is not there yet: the first command that needs it makes it")
        else:
            yield Result("error", subject, "is not there, and this user can't make it", f"make it, owned by {_me()}")
        return
    found = state.stat()
    if not stat.S_ISDIR(found.st_mode):
        yield Result("error", subject, "is not a directory", "set state_dir to one")
        return
    if not os.access(state, os.R_OK | os.W_OK | os.X_OK):
        advice = f"give it to {_me()}, or run as the user {found.st_uid} who owns it"
        yield Result("error", subject, "cannot be written by this user", advice)
        return
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o022:
        yield Result("warning", subject, f"others can write it (mode {mode:03o})", f"chmod 700 {state}")
    yield room(subject, state)


def room(subject: str, path: Path, needed: int = _LITTLE) -> Result:
    """Whether a directory's file system has room for `needed` bytes and a little more."""
    usage = shutil.disk_usage(path)
    text = f"{_gib(usage.free)} of {_gib(usage.total)} are free"
    if usage.free < needed:
        return Result("error", subject, f"{text}, {_gib(needed)} are wanted", "make room, or give it a larger disk")
    if usage.free * 100 < usage.total * _LITTLE_PERCENT or usage.free < 2 * needed:
        return Result("warning", subject, text, "make room before it is full")
    return Result("ok", subject, text)


def look_at_keys(state: Path, identity: Path | None, *, encrypted: bool) -> Iterator[Result]:
    """The signing key must be here, and a secret key for decryption had better not."""
    if os.access(state, os.R_OK | os.X_OK):
        public = OwnKey(state).public()
        text = f"snapshots are signed as ed25519:{public[:16]}…" if public else "is made by the first backup"
        yield Result("ok" if public else "note", "signing key", text)
    if identity is not None and os.access(identity, os.F_OK):
        yield Result(
            "warning",
            f"identity {identity}",
            "the secret key for decryption is on this machine: who takes it over can read all snapshots",
            "keep it elsewhere, and bring it for a restore" if encrypted else "nothing here needs it: remove it",
        )


def skew(subject: str, ahead: timedelta) -> Result:
    """A judgement of how far another clock is ahead of ours."""
    off = abs(ahead)
    level: Level = "ok" if off < _SKEW_NOTED else "warning" if off < _SKEW_REFUSED else "error"
    if level == "ok":
        return Result("ok", subject, f"its clock and ours differ by {off.total_seconds():.0f} s")
    way = "ahead of" if ahead > timedelta() else "behind"
    text = f"its clock is {off.total_seconds():.0f} s {way} ours: ages of snapshots and leases are judged by clocks"
    return Result(level, subject, text, "let both machines take their time from the network (NTP)")


def _me() -> str:
    return f"user {os.geteuid()}"


def _gib(size: int) -> str:
    return f"{size / 1024**3:.1f} GiB"
