"""Has a Redis write all of its data of one moment into its RDB file, in the background, while it serves."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial

from backupd.consistency.redis_server import HINT, RedisServer, Refusal
from backupd.errors import SourceError
from backupd.ports import Clock

LONGEST_SECONDS = 6 * 3600
_FIRST_POLL_SECONDS = 0.05
_LAST_POLL_SECONDS = 1.0
_UNSURE_SECONDS = 2
_NEWS_SECONDS = 30.0
_OTHERS = ("in progress", "child process is active")
_MEMORY_HINT = (
    "it takes memory for a fork of the server: `vm.overcommit_memory=1` on the host, room in the container's limit; "
    "`consistency: stop` does without"
)


def save(server: RedisServer, clock: Clock, note: Callable[[str], None]) -> datetime:
    """Save, and return a moment not after the one that the file is of. SourceError if the server cannot.

    What a save that goes on writes is of a moment that has passed; it is waited for. A busy server may save anew as
    soon as one save has ended, and leave no time for ours: one of its own that began after the moment will do.
    """
    waiting = _Waiting(server, note)
    moment, begun = clock.now(), time.monotonic()
    while True:
        asked = time.monotonic()
        info = server.info()
        if _began_within(info, asked - begun):
            after = waiting.until(partial(_saved_since, info), "saving")
            if _last(after) != _last(info) or after.get("rdb_last_bgsave_status") != "ok":
                break
            continue  # it went to a replica, and to no file
        if not _is_busy(info):
            moment = clock.now()
            if _starts(server):
                after = waiting.until(partial(_saved_since, info), "saving")
                break
        waiting.a_little(info, "waiting for a save that goes on")
    if after.get("run_id") != info.get("run_id"):
        raise SourceError(f"{server.service.name} restarted while it saved")
    if after.get("rdb_last_bgsave_status") != "ok":
        raise SourceError(
            f"{server.service.name} could not save its data; its log says why",
            hint=f"is its disk full? Else {_MEMORY_HINT}",
        )
    return moment


def _starts(server: RedisServer) -> bool:
    """Begin a save; False if another one has begun just now."""
    try:
        reply = server.ask("BGSAVE")
    except Refusal as exc:
        if any(words in str(exc) for words in _OTHERS):
            return False
        if str(exc).endswith("ERR"):
            raise SourceError(f"{server.service.name} cannot save: its fork failed", hint=_MEMORY_HINT) from exc
        raise
    if "started" not in reply:
        raise SourceError(f"{server.service.name} answers BGSAVE with {reply[:100]!r}", hint=HINT)
    return True


def _began_within(info: Mapping[str, str], seconds: float) -> bool:
    """Whether a save goes on that began no longer ago than that. The server counts whole seconds."""
    lasts = info.get("rdb_current_bgsave_time_sec", "-1")
    return _saves(info) and lasts.isdigit() and int(lasts) + _UNSURE_SECONDS < seconds


def _saved_since(before: Mapping[str, str], now: Mapping[str, str]) -> bool:
    return not _saves(now) or _last(now) != _last(before)


def _last(info: Mapping[str, str]) -> str | None:
    return info.get("rdb_last_save_time")


def _saves(info: Mapping[str, str]) -> bool:
    return info.get("rdb_bgsave_in_progress", "0") != "0"


def _is_busy(info: Mapping[str, str]) -> bool:
    return _saves(info) or any(info.get(f"{name}_in_progress", "0") != "0" for name in ("aof_rewrite", "module_fork"))


class _Waiting:
    """Polls, ever more rarely, and has something to say from time to time."""

    def __init__(self, server: RedisServer, note: Callable[[str], None]) -> None:
        self._server = server
        self._note = note
        self._deadline = time.monotonic() + LONGEST_SECONDS
        self._news = time.monotonic() + _NEWS_SECONDS
        self._pause = _FIRST_POLL_SECONDS

    def a_little(self, info: Mapping[str, str], what: str) -> None:
        """Sleep; SourceError when all of this has taken too long."""
        now = time.monotonic()
        if now > self._deadline:
            raise SourceError(f"{self._server.service.name} has been saving for {LONGEST_SECONDS // 3600} hours")
        if now > self._news:
            self._news = now + _NEWS_SECONDS
            self._note(f"{self._server.service.name}: {what}{_share(info)}")
        time.sleep(self._pause)
        self._pause = min(2 * self._pause, _LAST_POLL_SECONDS)

    def until(self, done: Callable[[Mapping[str, str]], bool], what: str) -> Mapping[str, str]:
        """The first INFO that is as wanted."""
        self._pause = _FIRST_POLL_SECONDS
        while not done(info := self._server.info()):
            self.a_little(info, what)
        return info


def _share(info: Mapping[str, str]) -> str:
    total = info.get("current_save_keys_total", "0")
    if not total.isdigit() or total == "0":
        return ""
    return f", {100 * int(info.get('current_save_keys_processed', '0')) // int(total)} % of the keys"
