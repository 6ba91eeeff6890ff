"""How a Redis in a container can be reached: port, socket, TLS, password, as its container's settings tell."""

from __future__ import annotations

import shlex
import string
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from backupd.records import Discreet
from backupd.services import Service, Services

_PASSWORDS = ("REDIS_PASSWORD", "VALKEY_PASSWORD", "KEYDB_PASSWORD", "REDIS_PASS", "REDISCLI_AUTH")
_SHELLS = frozenset({"sh", "ash", "bash", "dash"})
_SERVERS = frozenset({"redis-server", "valkey-server", "keydb-server"})
_DEEPEST_INCLUDE = 8

Directives = Mapping[str, Sequence[str]]


class Access(Discreet, frozen=True):
    """Arguments for the command line client, and a password that never becomes one. None: without."""

    _hidden: ClassVar = ("password",)

    arguments: tuple[str, ...]
    password: str | None = None

    @property
    def environment(self) -> Mapping[str, str]:
        """What hands the password to any of the clients."""
        return {} if self.password is None else {"REDISCLI_AUTH": self.password, "VALKEYCLI_AUTH": self.password}


def words_of(service: Service) -> list[str]:
    """The container's command line as the server gets it: a shell's script taken apart, variables filled in."""
    words: list[str] = []
    previous = ""
    for word in service.command:
        if previous == "-c" and any(part.rpartition("/")[2] in _SHELLS for part in words):
            try:
                script = shlex.split(word, comments=True)
            except ValueError:  # more shell than can be understood here
                script = word.split()
            words += [string.Template(part).safe_substitute(service.environment) for part in script]
        else:
            words.append(word)
        previous = word
    return words


def is_server(words: Sequence[str]) -> bool:
    """Whether a command line starts a server, and not a sentinel."""
    return any(word.rpartition("/")[2] in _SERVERS for word in words) and "--sentinel" not in words


def directives_of(service: Service, services: Services) -> Directives:
    """The server's settings by its configuration file and its command line, which wins; values as lists of words."""
    words = words_of(service)
    start = next((n for n, word in enumerate(words) if word.rpartition("/")[2] in _SERVERS), -1) + 1
    given = words[start:]
    found: dict[str, Sequence[str]] = {}
    file = next((word for word in given[:1] if start and not word.startswith("-")), None)
    if file is None:  # the official images' entrypoint puts the server in front of a word that ends so
        file = next((word for word in words if word.endswith(".conf")), None)
    if file is not None:
        found.update(_of_file(service, services, file, 0))
    name = ""
    for word in given:
        if word.startswith("--") and len(word) > 2:
            name = word[2:].lower()
            found[name] = ()
        elif name:
            found[name] = (*found[name], word)
    return found


def _of_file(service: Service, services: Services, path: str, depth: int) -> Iterator[tuple[str, Sequence[str]]]:
    said = services.run(service, ["cat", path])
    if said.exit_code != 0 or depth > _DEEPEST_INCLUDE:
        return
    for line in said.stdout.splitlines():
        try:
            words = shlex.split(line, comments=line.lstrip().startswith("#"))
        except ValueError:
            continue
        if len(words) < 2:
            continue
        name = words[0].lower()
        if name == "include":
            yield from _of_file(service, services, words[1], depth + 1)
        elif name == "user" and words[1] == "default":
            yield from (("requirepass", (word[1:],)) for word in words[2:] if word.startswith(">"))
        else:
            yield name, words[1:]


def accesses(
    service: Service, services: Services, directives: Directives, user: str | None, password: str | None
) -> Iterator[Access]:
    """What to try, in order. With a password given only that; none is the last thing to try otherwise."""
    arguments = (*_place(directives), *(("--user", user) if user else ()))
    if password is not None:
        yield Access(arguments, password)
        return
    seen: set[str] = set()
    for candidate in _passwords(service, services, directives):
        if candidate and candidate not in seen:
            seen.add(candidate)
            yield Access(arguments, candidate)
    yield Access(arguments)


def _passwords(service: Service, services: Services, directives: Directives) -> Iterator[str]:
    yield " ".join(directives.get("requirepass", ()))
    for name in _PASSWORDS:
        yield service.environment.get(name, "")
        if file := service.environment.get(f"{name}_FILE"):
            yield services.run(service, ["cat", file]).stdout.rstrip("\r\n")


def _place(directives: Directives) -> tuple[str, ...]:
    """Where the server listens. TLS needs no proof of who it is: nobody else can listen inside of its container."""

    def one(name: str, default: str = "") -> str:
        values = directives.get(name, ())
        return values[0] if values else default

    if one("port", "6379") != "0":
        return ("-p", one("port")) if one("port") else ()
    if one("tls-port", "0") != "0":
        given = (("--cert", "tls-cert-file"), ("--key", "tls-key-file"), ("--cacert", "tls-ca-cert-file"))
        files = tuple(word for option, name in given if one(name) for word in (option, one(name)))
        return ("-p", one("tls-port"), "--tls", "--insecure", *files)
    return ("-s", one("unixsocket")) if one("unixsocket") else ()
