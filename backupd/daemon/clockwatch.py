"""Notices that the clock was set, or that the machine slept."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct

_TOLERATED_SECONDS = 60.0


class ClockWatch(Struct):
    """Compares the clock with one that is never set and stands still while the machine sleeps."""

    time: datetime
    monotonic: float
    new_day: bool = False
    """Whether the last look was the first of its day (UTC)."""

    def look(self, time: datetime, monotonic: float) -> float:
        """By how many seconds the clock went ahead of time since the last look; 0 for what needs no attention."""
        ahead = (time - self.time).total_seconds() - (monotonic - self.monotonic)
        self.new_day = time.date() != self.time.date()
        self.time, self.monotonic = time, monotonic
        return ahead if abs(ahead) > _TOLERATED_SECONDS else 0.0
