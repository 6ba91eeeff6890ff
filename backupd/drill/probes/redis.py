"""Redis and Valkey: the server loaded its data, without complaints, and says how many keys there are."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence

from backupd.drill.probes.base import NOT_FOUND, Results, Subject, image_name, said
from backupd.errors import SourceError
from backupd.sandbox import ExtraArguments
from backupd.services import CommandResult, Service

_IMAGES = re.compile(r"(redis|valkey|keydb)(-stack(-server)?)?(-\d+)?")
_VARIABLES = ("REDIS_VERSION", "VALKEY_VERSION")
_PASSWORDS = ("REDISCLI_AUTH", "REDIS_PASSWORD", "VALKEY_PASSWORD")
_REFUSED = re.compile(r"^(\(error\) )?(NOAUTH|WRONGPASS|NOPERM|ERR AUTH|AUTH failed)", re.MULTILINE)
_POLL_SECONDS = 0.2

# An RDB without a key is some 90 bytes long; with functions or modules' data a little longer.
_EMPTY_BYTES = 512

_CLI = 'for cli in redis-cli valkey-cli keydb-cli; do command -v $cli >/dev/null && exec $cli "$@"; done; exit 127'


class RedisProbe:
    """See Probe."""

    name = "redis"
    extra: ExtraArguments | None = None
    files: re.Pattern[str] | None = re.compile(r"\.(rdb|aof)$")

    def fits(self, service: Service) -> bool:
        """See Probe."""
        return bool(_IMAGES.fullmatch(image_name(service))) or any(name in service.environment for name in _VARIABLES)

    def run(self, subject: Subject, results: Results) -> None:
        """See Probe."""
        server = _Server(subject)
        info = server.info()
        while info.get("loading") == "1" and subject.seconds_left:
            time.sleep(_POLL_SECONDS)
            info = server.info()
        keys = {name: int(match[1]) for name, value in info.items() if (match := re.match(r"keys=(\d+)", value))}
        total = sum(keys.values())
        results.counts["keys"] = total
        version = info.get("valkey_version") or info.get("redis_version") or "of unknown version"
        databases = ", ".join(f"{name} {count:,}" for name, count in keys.items())
        persistent = {path: size for path, size in subject.files.items() if size > _EMPTY_BYTES}
        if total == 0 and persistent:
            path, size = max(persistent.items(), key=lambda item: item[1])
            results.failed(f"loaded not a single key, although {path} has {size:,} bytes{_why(server)}", damage=True)
        else:
            results.proven(f"loaded {total:,} keys ({version}{f'; {databases}' if databases else ''})")
        if info.get("aof_enabled") == "1" and info.get("aof_last_write_status", "ok") != "ok":
            results.warning(f"its append-only file: last write {info['aof_last_write_status']}")


def _why(server: _Server) -> str:
    """An RDB that lies there is not loaded under `appendonly yes`."""
    return ": it runs with appendonly yes, and does not load it then" if server.appendonly() else ""


class _Server:
    """redis-cli in the copy."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._service = subject.service
        self._user = subject.spec.user
        self._password: str | None = None

    def info(self) -> Mapping[str, str]:
        """INFO as a mapping; SourceError if the server refuses."""
        lines = (line.partition(":") for line in self._asked("INFO").splitlines())
        return {key: value.strip() for key, _, value in lines if value}

    def appendonly(self) -> bool:
        """Whether it keeps an append-only file, as far as it tells."""
        return self.info().get("aof_enabled") == "1"

    def _asked(self, *command: str) -> str:
        result = self._run(command)
        if _REFUSED.search(result.stdout + result.stderr):
            for password in self._passwords():
                self._password = password
                result = self._run(command)
                if not _REFUSED.search(result.stdout + result.stderr):
                    break
            else:
                raise SourceError(
                    "it wants a password that is not known",
                    hint="set `password` of the volume",
                )
        if result.exit_code == NOT_FOUND:
            raise SourceError("its image has no redis-cli")
        if result.exit_code != 0:
            raise SourceError(f"it answers: {said(result, self._service)}")
        return result.stdout

    def _run(self, command: tuple[str, ...]) -> CommandResult:
        login = ["--user", self._user] if self._user and self._password else []
        environment = dict.fromkeys(("REDISCLI_AUTH", "VALKEYCLI_AUTH"), self._password) if self._password else {}
        return self._subject.run(["sh", "-c", _CLI, "sh", *self._address(), *login, *command], environment)

    def _address(self) -> list[str]:
        port = _argument(self._subject.command, "--port")
        return ["-p", port] if port and port.isdigit() and port != "0" else []

    def _passwords(self) -> Iterator[str]:
        if self._subject.spec.password:
            yield self._subject.spec.password
        words = [word for part in self._subject.command for word in part.split()]  # `sh -c "redis-server …"` too
        if password := _argument(words, "--requirepass"):
            yield password
        yield from filter(None, map(self._subject.variable, _PASSWORDS))
        for word in words:
            if word.endswith(".conf"):
                shown = self._subject.run(["cat", word])
                if match := re.search(r"^\s*requirepass\s+\"?([^\"\s]+)", shown.stdout, re.MULTILINE):
                    yield match[1]


def _argument(words: Sequence[str], name: str) -> str | None:
    return next((words[at + 1] for at, word in enumerate(words[:-1]) if word == name), None)
