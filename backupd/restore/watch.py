"""Whether a service that was started is well."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

from backupd.errors import ServiceUnhealthy
from backupd.services import Service, Services

STEADY_SECONDS = 3.0
"""How long a service without a health check has to run without a restart to count as well."""

MOST_RESTARTS = 3
"""What came too early for what it needs has found it by then: the engine waits longer and longer in between."""

LOG_LINES = 5

_SECRET = re.compile(r"(?i)pass|secret|token|key|credential|dsn|_ur[il]$|^ur[il]$")
_MASK = "********"
_LONGEST_LINE = 300


class Watch:
    """One service, from its start on. Call `look` again and again until it is `well`.

    `unhealthy` is a state that a service may leave: it fails only if it is in it when its time is over. One that ends,
    or that the engine restarts again and again, fails at once.
    """

    def __init__(self, services: Services, service: Service, within_seconds: float) -> None:
        self._services = services
        self.service = service
        self._within = within_seconds
        self._deadline = time.monotonic() + within_seconds
        self._run: tuple[str, float] | None = None
        self.usable = False
        self.well = False
        self.up_at: float | None = None

    def look(self) -> None:
        """See how it is now. ServiceUnhealthy if it failed.

        `usable`: others that depend on it may be started. `up_at` is the time (of `time.monotonic`) since which it has
        been there.
        """
        now = time.monotonic()
        found = self._services.inspect(self.service.id)
        if found is None:
            raise self._failed("is gone")
        if found.state in {"exited", "dead", "created", "removing"}:
            raise self._failed(f"ended with exit code {found.exit_code}")
        if found.restarts >= MOST_RESTARTS:
            raise self._failed(f"keeps ending, with exit code {found.exit_code}, and was restarted")
        if self._run is None or found.started_at != self._run[0]:
            self._run = found.started_at, now
        if found.state != "running":
            self.usable, what = False, str(found.state)
        elif found.has_health_check:
            what = str(self._services.health(found))
            self.usable = self.well = what == "healthy"
            self.up_at = now if self.well else None
        else:
            what = "not yet steady"
            self.usable, self.up_at = True, self._run[1]
            self.well = now - self._run[1] >= STEADY_SECONDS
        if not self.well and now > self._deadline:
            raise self._failed(f"was still {what} after {self._within:g} s")

    def _failed(self, how: str) -> ServiceUnhealthy:
        return ServiceUnhealthy(f"container {self.service.name} {how}")


def last_words(services: Services, service: Service) -> Sequence[str]:
    """The last lines of its log, without the secrets that its environment holds."""
    secrets = sorted(
        (value for name, value in service.environment.items() if _SECRET.search(name) and len(value) > 3),
        key=len,
        reverse=True,
    )
    lines = []
    for line in services.logs(service, LOG_LINES):
        for secret in secrets:
            line = line.replace(secret, _MASK)  # noqa: PLW2901
        lines.append("".join(char if char.isprintable() else " " for char in line[:_LONGEST_LINE]).rstrip())
    return [line for line in lines if line]
