"""A proxy in front of an S3 server that misbehaves by rule: refuses, forgets headers, cuts connections."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit


@dataclass
class Request:
    """What came in. Rules may change `headers` before it is passed on."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""

    @property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.path).query, keep_blank_values=True)

    def has(self, prefix: str) -> bool:
        """Whether there is a header that starts so."""
        return any(name.lower().startswith(prefix.lower()) for name in self.headers)

    def drop(self, prefix: str) -> None:
        """Remove headers that start so."""
        for name in [name for name in self.headers if name.lower().startswith(prefix.lower())]:
            del self.headers[name]


@dataclass(frozen=True)
class Answer:
    """Answer this without asking the server."""

    status: int
    code: str = ""
    message: str = "by rule"

    @property
    def body(self) -> bytes:
        if not self.code:
            return b""
        return f"<Error><Code>{self.code}</Code><Message>{self.message}</Message></Error>".encode()


@dataclass(frozen=True)
class CutAnswer:
    """Pass the request on and cut the connection after that many bytes of the answer's body (None: before it)."""

    after: int | None


@dataclass(frozen=True)
class CutRequest:
    """Cut the connection in the middle of the request's body, which the server never sees."""

    after: int


@dataclass(frozen=True)
class Slowly:
    """Pass the request on after that many seconds."""

    seconds: float


Action = Answer | CutAnswer | CutRequest | Slowly
Rule = Callable[[Request], Action | None]


@dataclass
class Proxy:
    """A running proxy. The first of `rules` that returns an action decides; `seen` is every request, in order."""

    endpoint_url: str
    rules: list[Rule] = field(default_factory=list)
    seen: list[Request] = field(default_factory=list)

    def count(self, method: str, part: str = "") -> int:
        return sum(request.method == method and part in request.path for request in self.seen)


def times(number: int, rule: Rule) -> Rule:
    """The rule for the first `number` requests that it fits."""
    lock = threading.Lock()
    left = number

    def limited(request: Request) -> Action | None:
        nonlocal left
        with lock:
            action = rule(request) if left else None
            left -= action is not None
            return action

    return limited


def after(number: int, rule: Rule) -> Rule:
    """The rule for all requests but the first `number`."""
    lock = threading.Lock()
    left = number

    def late(request: Request) -> Action | None:
        nonlocal left
        with lock:
            left -= 1
            return rule(request) if left < 0 else None

    return late


@contextmanager
def running(upstream: str) -> Iterator[Proxy]:
    """A proxy in front of `upstream`, within the block."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.upstream = urlsplit(upstream).netloc
    server.proxy = Proxy(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server.proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    upstream: str
    proxy: Proxy
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up are expected."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    timeout = 30

    def handle_any(self) -> None:
        request = Request(self.command, self.path, dict(self.headers.items()))
        self.server.proxy.seen.append(request)
        action = next((a for a in (rule(request) for rule in self.server.proxy.rules) if a is not None), None)
        length = int(self.headers.get("Content-Length", 0))
        if isinstance(action, CutRequest):
            self.rfile.read(min(action.after, length))
            self._cut()
            return
        request.body = self.rfile.read(length)
        if isinstance(action, Answer):
            self._send(action.status, {"Content-Type": "application/xml"}, action.body)
            return
        if isinstance(action, Slowly):
            time.sleep(action.seconds)
        status, headers, body = self._ask(request)
        if isinstance(action, CutAnswer):
            if action.after is not None:
                self._send(status, headers, body, cut=action.after)
            self._cut()
            return
        self._send(status, headers, body)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any  # noqa: N815

    def _ask(self, request: Request) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self.server.upstream, timeout=30)
        try:
            connection.request(request.method, request.path, request.body or None, request.headers)
            response = connection.getresponse()
            body = response.read()
            headers = dict(response.getheaders())
        finally:
            connection.close()
        if request.method != "HEAD":
            headers = {k: v for k, v in headers.items() if k.lower() != "content-length"}
        headers = {k: v for k, v in headers.items() if k.lower() not in {"transfer-encoding", "connection"}}
        return response.status, headers, body

    def _send(self, status: int, headers: dict[str, str], body: bytes, cut: int | None = None) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(body)))
        elif "Content-Length" not in headers:
            self.send_header("Content-Length", "0")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:cut])

    def _cut(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        # A reset, not an orderly end: SO_LINGER with a timeout of zero.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.connection.close()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Quiet."""
