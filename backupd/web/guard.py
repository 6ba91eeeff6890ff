"""What stands before every request: the host it was meant for, the token, headers of the answer, the access log."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Collection
from time import perf_counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

PROBES = frozenset({"/livez", "/readyz"})

_HEADERS = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
)
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})

AccessLog = Callable[[str, str, int, float, str], None]
"""Method, path with query, status, seconds, client."""


class Guard:
    """ASGI middleware. Without a token only the probes are served.

    `hosts`: the Host headers that are answered, None: any. A name that somebody else made point here (DNS rebinding)
    is none of them; nor would a browser send the token, and there are no CORS headers, ever.
    """

    def __init__(self, app: ASGIApp, token: str | None, hosts: Collection[str] | None, log: AccessLog) -> None:
        self._app = app
        self._digest = hashlib.sha256(token.encode()).digest() if token else None
        self._hosts = None if hosts is None else frozenset(host.lower() for host in hosts)
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        begun = perf_counter()
        status = 500

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), *_HEADERS]
            await send(message)

        try:
            refused = self._refusal(scope)
            if refused is None:
                await self._app(scope, receive, sending)
            else:
                await _refuse(sending, *refused)
        finally:
            query = scope.get("query_string", b"").decode("latin-1")
            path = f"{scope['path']}?{query}" if query else scope["path"]
            client = (scope.get("client") or ("?", 0))[0]
            self._log(scope["method"], path, status, perf_counter() - begun, client)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        headers = dict(scope["headers"])
        if self._hosts is not None and _host(headers.get(b"host", b"").decode("latin-1")) not in self._hosts:
            return 421, "this host name is not served here (web.allowed_hosts)"
        if scope["path"] in PROBES:
            return None
        if self._digest is None:
            return 403, "no token is configured (web.token): only the probes are served"
        kind, _, given = headers.get(b"authorization", b"").partition(b" ")
        digest = hashlib.sha256(given.strip()).digest()
        if kind.lower() != b"bearer" or not hmac.compare_digest(digest, self._digest):
            return 401, "a token is needed: Authorization: Bearer …"
        return None


def _host(header: str) -> str:
    """The Host header without its port."""
    if header.startswith("["):
        return header[1:].partition("]")[0].lower()
    return header.rpartition(":")[0].lower() if ":" in header else header.lower()


async def _refuse(send: Send, status: int, error: str) -> None:
    body = json.dumps({"error": error, "detail": []}, ensure_ascii=False).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b'Bearer realm="backupd"'))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
