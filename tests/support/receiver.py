"""A real HTTP server that keeps what it was sent, and can be slow, broken or silent."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@dataclass
class Receiver:
    """`answers` are the statuses of the next requests, 200 thereafter; while `silent` is set nothing is answered."""

    scheme: str = "http"
    port: int = 0
    requests: list[tuple[str, str, bytes]] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    body: bytes = b"OK"
    silent: threading.Event = field(default_factory=threading.Event)

    @property
    def apprise(self) -> str:
        return f"{'jsons' if self.scheme == 'https' else 'json'}://127.0.0.1:{self.port}/hook/s3cr3t-t0ken-in-the-path"

    @property
    def ping(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/ping/0f1e2d3c-secret"

    def wait(self, count: int) -> list[tuple[str, str, bytes]]:
        """The requests once there are that many."""
        end = time.monotonic() + 60
        while len(self.requests) < count and time.monotonic() < end:
            time.sleep(0.01)
        assert len(self.requests) >= count, self.requests
        return self.requests

    def messages(self, count: int) -> list[dict[str, Any]]:
        """What Apprise sent, once there is that much."""
        return [json.loads(body) for _, _, body in self.wait(count)]


@contextmanager
def receiver(certificates: Path | None = None) -> Iterator[Receiver]:
    """With the certificate of `make_certificates` in that directory, over TLS."""
    found = Receiver("https" if certificates else "http")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            found.requests.append((self.command, self.path, body))
            while found.silent.is_set():
                time.sleep(0.05)
            try:
                self.send_response(found.answers.pop(0) if found.answers else 200)
                self.send_header("Content-Length", str(len(found.body)))
                self.end_headers()
                self.wfile.write(found.body)
            except OSError:  # the client has given up
                pass

        do_GET = do_POST  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.port = server.server_address[1]
    if certificates is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield found
    finally:
        found.silent.clear()
        server.shutdown()
        server.server_close()
        thread.join()
