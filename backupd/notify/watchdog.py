"""Looks regularly at what no run tells of: sizes, ages, free space."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path

import msgspec

from backupd.errors import BackupdError
from backupd.history import Run
from backupd.notify.alerts import Raised, step
from backupd.notify.conditions import Condition
from backupd.notify.events import Event
from backupd.ports import Clock
from backupd.statefile import locked, read_private, write_private

Look = Callable[[Mapping[str, datetime], datetime], list[Condition]]
"""Given since when plans are known, and the time: all conditions."""


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """`alerts.json` in the state directory: so a restart neither repeats an alert nor forgets it."""

    raised: dict[str, Raised] = {}
    known: dict[str, datetime] = {}


class Watchdog:
    """Checks every `every`, and when a run has ended; `start` begins a thread, `stop` ends it.

    `tell` is given each event. What can't be found out or kept is warned of, once until it changes.
    """

    def __init__(
        self,
        state: Path,
        clock: Clock,
        look: Look,
        plans: frozenset[str],
        intervals: tuple[timedelta, timedelta],
        ways: tuple[Callable[[Event], None], Callable[[str], None]],
    ) -> None:
        self._path = state / "alerts.json"
        self._clock = clock
        self._look = look
        self._plans = plans
        self._every, self._remind = intervals
        self._tell, self._warn = ways
        self._wake = threading.Event()
        self._ending = False
        self._warned = ""
        self._thread: threading.Thread | None = None

    def began(self, run: Run) -> None:
        """Nothing has changed yet."""

    def ended(self, run: Run) -> None:  # noqa: ARG002  (a Watcher)
        """Look at once: the new snapshot may be smaller than it should be."""
        self._wake.set()

    def start(self) -> None:
        """Check from now on."""
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Check no more; waits for a check that is being made, 10 seconds at most."""
        self._ending = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(10)

    def raised(self) -> Mapping[str, Raised]:
        """The alerts that are on. BackupdError if they can't be read."""
        return self._read().raised

    def check(self) -> None:
        """Look once."""
        now = self._clock.now()
        with locked(self._path):
            kept = self._read()
            known = {plan: kept.known.get(plan, now) for plan in sorted(self._plans)}
            raised, events = step(kept.raised, self._look(known, now), now, self._remind)
            after = Kept(raised=raised, known=known)
            if after != kept:
                write_private(self._path, msgspec.json.encode(after))
        for event in events:
            self._tell(event)

    def _run(self) -> None:
        while not self._ending:
            try:
                self.check()
                self._warned = ""
            except BackupdError as exc:
                self._warn_once(str(exc))
            except Exception as exc:  # a mistake must not be the end of all alerts
                self._warn_once(f"alerts: this should not have happened: {type(exc).__name__}: {exc}")
            self._wake.wait(self._every.total_seconds())
            self._wake.clear()

    def _warn_once(self, text: str) -> None:
        if text != self._warned:
            self._warned = text
            self._warn(text)

    def _read(self) -> Kept:
        try:
            data = read_private(self._path)
            return msgspec.json.decode(data, type=Kept) if data else Kept()
        except msgspec.DecodeError:  # of another version, or damaged: at worst an alert is told again
            return Kept()
