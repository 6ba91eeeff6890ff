"""A Redis, Valkey or KeyDB in a container, asked through its own command line client."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping

from msgspec import Struct

from backupd.consistency.redis_access import Access, accesses, directives_of
from backupd.errors import EngineUnavailable, SourceError
from backupd.model import VolumeSpec
from backupd.services import Service, Services

CLIENTS = ("redis-cli", "valkey-cli", "keydb-cli")
HINT = "`consistency: stop` lets the server write out everything and copies its files; it needs nothing but the files"

_NOT_FOUND = (126, 127)
_REFUSAL = re.compile(
    r"^(?:\(error\) )?((?:ERR|NOAUTH|WRONGPASS|NOPERM|LOADING|MISCONF|BUSY|DENIED|BUSYKEY)\b.*)", re.DOTALL
)


class Refusal(SourceError):  # noqa: N818  (reads as what it is)
    """The server answers, but not to that."""

    hint = HINT


class RedisServer(Struct, frozen=True):
    """A server that answers. Each question is a command in its container, some 50 ms."""

    services: Services
    service: Service
    client: str
    access: Access

    def ask(self, *command: str) -> str:
        """The reply; Refusal if it is an error, SourceError if there is none."""
        said = self.services.run(
            self.service, [self.client, *self.access.arguments, *command], environment=self.access.environment
        )
        reply = said.stdout.strip("\n")
        if refused := _REFUSAL.match(reply):
            raise Refusal(f"{self.service.name} refuses {' '.join(command[:2])}: {' '.join(refused[1].split())}")
        if said.exit_code != 0:
            reason = " ".join((said.stderr.strip() or reply).split())[-300:]
            raise SourceError(f"{self.service.name}: {self.client} failed: {reason}", hint=HINT)
        return reply

    def info(self) -> Mapping[str, str]:
        """All that INFO tells."""
        lines = (line.strip() for line in self.ask("INFO").splitlines())
        return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))

    def setting(self, name: str, default: str = "") -> str:
        """A setting by CONFIG GET; the default if this version has none of that name."""
        found = self.ask("CONFIG", "GET", name).split("\n")
        return found[1] if len(found) > 1 and found[0] == name else default


def reach(services: Services, service: Service, spec: VolumeSpec) -> RedisServer:
    """The server in a container; SourceError says why it cannot be asked. Waits while it loads its data."""
    directives = directives_of(service, services)
    problem: SourceError | None = None
    for access in accesses(service, services, directives, spec.user, spec.password):
        for client in CLIENTS:
            server = RedisServer(services, service, client, access)
            said = services.run(service, [client, *access.arguments, "PING"], environment=access.environment)
            if said.exit_code in _NOT_FOUND and "not found" in said.stdout + said.stderr:
                continue
            try:
                _wait_until_loaded(server)
            except EngineUnavailable:
                raise
            except SourceError as exc:
                problem = problem or exc
                break
            return server
    if problem is None:
        raise SourceError(f"container {service.name} has no {', '.join(CLIENTS[:-1])} or {CLIENTS[-1]}", hint=HINT)
    if any(word in str(problem) for word in ("NOAUTH", "WRONGPASS", "NOPERM")):
        problem.hint = "give the volume a `user:` and `password:` that may use INFO, CONFIG GET and BGSAVE"
    raise problem


def _wait_until_loaded(server: RedisServer, patience_seconds: float = 3600) -> None:
    deadline = time.monotonic() + patience_seconds
    while server.info().get("loading", "0") != "0":
        if time.monotonic() > deadline:
            raise SourceError(f"{server.service.name} has been loading its data for too long", hint=HINT)
        time.sleep(1)
