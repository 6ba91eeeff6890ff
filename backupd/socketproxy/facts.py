"""What there is, asked from the Engine: one short connection a question, so that any thread may ask."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote, urlencode

from backupd.errors import EngineUnavailable
from backupd.model import PROJECT_LABEL
from backupd.socketproxy.model import Found, Rules

TIMEOUT_SECONDS = 60


class EngineFacts:
    """See Facts. `version` is the prefix of the client's request, which the Engine has offered it."""

    def __init__(self, path: str, rules: Rules, version: str = "") -> None:
        self._path = path
        self._rules = rules
        self._version = version
        self._info: Found | None = None

    def container(self, name: str) -> Found | None:
        """See Facts."""
        return self._get(f"/containers/{quote(name, safe='')}/json")

    def project_containers(self) -> Sequence[Found]:
        """See Facts: also those that the configuration names."""
        label = json.dumps({"label": [f"{PROJECT_LABEL}={self._rules.project}"]})
        listed = self._ask(f"/containers/json?{urlencode({'all': '1', 'filters': label})}") or []
        names = [box["Id"] for box in listed] + sorted(self._rules.containers)
        return [found for name in names if (found := self.container(name)) is not None]

    def volume(self, name: str) -> Found | None:
        """See Facts."""
        return self._get(f"/volumes/{quote(name, safe='')}")

    def image(self, name: str) -> Found | None:
        """See Facts."""
        return self._get(f"/images/{quote(name, safe='/:@')}/json")

    def network(self, name: str) -> Found | None:
        """See Facts."""
        return self._get(f"/networks/{quote(name, safe='')}")

    def execution(self, number: str) -> Found | None:
        """See Facts."""
        return self._get(f"/exec/{quote(number, safe='')}/json")

    def data_root(self) -> str | None:
        """See Facts. Asked once."""
        if self._info is None:
            self._info = self._get("/info") or {}
        root = self._info.get("DockerRootDir")
        return str(root) if root else None

    def _get(self, path: str) -> Found | None:
        found = self._ask(path)
        return found if isinstance(found, dict) else None

    def _ask(self, path: str) -> Any:
        connection = _UnixConnection(self._path)
        try:
            connection.request("GET", self._version + path)
            answer = connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as exc:
            raise EngineUnavailable(f"the Docker Engine at {self._path} does not answer: {exc}") from exc
        finally:
            connection.close()
        if answer.status == http.HTTPStatus.NOT_FOUND:
            return None
        if answer.status != http.HTTPStatus.OK:
            raise EngineUnavailable(f"the Docker Engine answers {answer.status} to a question about {path}")
        return json.loads(text)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(TIMEOUT_SECONDS)
        self.sock.connect(self._path)
