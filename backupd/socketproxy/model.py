"""What the proxy decides by, and what comes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from msgspec import Struct

OWNED_LABEL = "backupd.proxy"
"""On everything that is created through a proxy; its value is the project. Nobody but the proxy sets it."""

Found = Mapping[str, Any]
"""What the Engine says of a thing."""


class Rules(Struct, frozen=True):
    """Whose things may be touched. `volumes` and `containers` are names besides those of the project.

    `paths` are the directories of the host that are backed up; `helper_images` what helpers are made from;
    `engine_socket` is where the Engine listens: whoever has it mounted is never executed in.
    """

    project: str
    helper_images: Sequence[str]
    volumes: frozenset[str] = frozenset()
    containers: frozenset[str] = frozenset()
    paths: frozenset[str] = frozenset()
    engine_socket: str = "/var/run/docker.sock"


class Facts(Protocol):
    """What there is, as the Engine says it now. None for what there is not."""

    def container(self, name: str) -> Found | None: ...  # noqa: D102

    def project_containers(self) -> Sequence[Found]: ...  # noqa: D102

    def volume(self, name: str) -> Found | None: ...  # noqa: D102

    def image(self, name: str) -> Found | None: ...  # noqa: D102

    def network(self, name: str) -> Found | None: ...  # noqa: D102

    def execution(self, number: str) -> Found | None: ...  # noqa: D102

    def data_root(self) -> str | None:
        """Where the Engine keeps images, containers and volumes; None if it does not say."""
        ...


class Allowed(Struct, frozen=True):
    """A request to the Engine, written anew from what was understood: no byte of the client's is passed on unread.

    `stream`: the connection is taken over and carries raw bytes both ways afterwards.
    """

    method: str
    target: str
    body: bytes | None = None
    stream: bool = False


class Refused(Struct, frozen=True):
    """Why not. 404 is for things that are not there, which the client may want to know."""

    reason: str
    status: int = 403


Decision = Allowed | Refused


class Refusal(Exception):  # noqa: N818  (a way out of nested checks, which `decide` turns into Refused)
    """Raised by checks."""

    def __init__(self, reason: str, status: int = 403) -> None:
        super().__init__(reason)
        self.status = status


def missing(noun: str, name: str) -> Refusal:
    """It is not there; in the Engine's words, which the SDK looks at."""
    return Refusal(f"No such {noun}: {name}", 404)
