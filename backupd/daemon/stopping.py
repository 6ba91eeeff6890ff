"""How a daemon stops: runs may finish, are aborted if that takes too long, and killed if that does, too. Pure."""

from __future__ import annotations

from typing import Literal, Self

from msgspec import Struct

Act = Literal["abort", "kill"]

_LONGEST_ABORT_SECONDS = 30.0
_GIVE_UP_SECONDS = 5.0


class Stopping(Struct):
    """When runs are aborted and killed, by a clock that is never set."""

    abort_at: float
    kill_at: float
    aborted: bool = False
    killed: bool = False

    @classmethod
    def begin(cls, now: float, within_seconds: float) -> Self:
        """All is to be over within that time. Half of it, at most half a minute, is for aborting."""
        return cls(now + within_seconds - min(within_seconds / 2, _LONGEST_ABORT_SECONDS), now + within_seconds)

    def hurry(self, now: float) -> None:
        """Told to stop once more: abort now."""
        if not self.aborted:
            self.kill_at = min(self.kill_at, now + self.kill_at - self.abort_at)
            self.abort_at = now

    def act(self, now: float) -> Act | None:
        """What is to be done now; each comes once."""
        if not self.aborted and now >= self.abort_at:
            self.aborted = True
            return "abort"
        if not self.killed and now >= self.kill_at:
            self.killed = True
            return "kill"
        return None

    def pause(self, now: float) -> float:
        """Seconds until there is something to do."""
        if self.killed:
            return max(0.0, self.kill_at + _GIVE_UP_SECONDS - now)
        return max(0.0, (self.kill_at if self.aborted else self.abort_at) - now)

    def given_up(self, now: float) -> bool:
        """Whether what was killed has had its time to end."""
        return self.killed and now >= self.kill_at + _GIVE_UP_SECONDS
