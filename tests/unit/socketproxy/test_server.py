"""The socket itself, before an Engine that is made up: what reaches it, and when."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backupd.socketproxy import ProxyServer
from tests.unit.socketproxy.world import RULES, World

EXEC = "e" * 64
START = f"POST /v1.41/exec/{EXEC}/start HTTP/1.1\r\nHost: d\r\nContent-Length: 2\r\n%s\r\n{{}}"
UPGRADE = "Connection: Upgrade\r\nUpgrade: tcp\r\n"
SMUGGLED = b"POST /v1.41/containers/create HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n"
BUSY = b'HTTP/1.1 409 Conflict\r\nContent-Type: application/json\r\nContent-Length: 20\r\n\r\n{"message":"paused"}'
TAKEN = b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\n\r\n"
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\nApi-Version: 1.41\r\n\r\n"


class FakeEngine(socketserver.ThreadingUnixStreamServer):
    """Knows the things of a `World`, and starts commands with `answer`; `after` is all that came behind that."""

    daemon_threads = True

    def __init__(self, path: Path, answer: bytes) -> None:
        super().__init__(str(path), _Answering)
        self.answer = answer
        self.world = World()
        self.world.executions[EXEC] = {"ContainerID": "postgres", "ProcessConfig": {}}
        self.after = b""
        self.over = threading.Event()


class _Answering(socketserver.BaseRequestHandler):
    server: FakeEngine
    request: socket.socket

    def handle(self) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            data += self.request.recv(4096)
        line = data.partition(b"\r\n")[0].decode()
        if asked := re.fullmatch(r"GET /v1\.41/(exec|containers|volumes)/([^/]+?)(?:/json)? HTTP/1\.1", line):
            world = self.server.world
            find = {"exec": world.execution, "containers": world.container, "volumes": world.volume}[asked[1]]
            body = json.dumps(find(asked[2])).encode()
            self.request.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            return
        while not data.endswith(b"}"):
            data += self.request.recv(4096)
        for byte in self.server.answer:  # in as many pieces as there can be
            self.request.sendall(bytes([byte]))
        while more := self.request.recv(4096):
            self.server.after += more
        self.request.sendall(b"bye")
        self.server.over.set()


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[[bytes], tuple[FakeEngine, socket.socket]]]:
    """Makes an Engine that answers so, and a connection to a proxy before it."""
    servers: list[socketserver.BaseServer] = []
    connections: list[socket.socket] = []

    def start(answer: bytes) -> tuple[FakeEngine, socket.socket]:
        engine = FakeEngine(tmp_path / "engine.sock", answer)
        proxy = ProxyServer(tmp_path / "proxy.sock", str(tmp_path / "engine.sock"), RULES)
        for server in (engine, proxy):
            servers.append(server)
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        connection = socket.socket(socket.AF_UNIX)
        connections.append(connection)
        connection.connect(str(tmp_path / "proxy.sock"))
        return engine, connection

    yield start
    for connection in connections:
        connection.close()
    for server in servers:
        server.shutdown()
        server.server_close()


def received(connection: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length and (more := connection.recv(length - len(data))):
        data += more
    return data


@pytest.mark.parametrize("headers", ["", UPGRADE])
def test_nothing_follows_a_start_that_the_engine_refuses(
    started: Callable[[bytes], tuple[FakeEngine, socket.socket]], headers: str
) -> None:
    """It would take what follows for the next request, which nobody has looked at."""
    engine, connection = started(BUSY)
    connection.sendall((START % headers).encode())
    assert received(connection, len(BUSY)) == BUSY
    with contextlib.suppress(OSError):  # the proxy has hung up
        connection.sendall(SMUGGLED)
        connection.shutdown(socket.SHUT_WR)
    engine.over.wait()
    assert engine.after == b""


@pytest.mark.parametrize(("headers", "answer"), [(UPGRADE, TAKEN), ("", PLAIN)])
def test_a_stream_goes_both_ways_once_the_engine_has_taken_over(
    started: Callable[[bytes], tuple[FakeEngine, socket.socket]], headers: str, answer: bytes
) -> None:
    engine, connection = started(answer)
    connection.sendall((START % headers).encode())
    assert received(connection, len(answer)) == answer
    connection.sendall(b"input")
    connection.shutdown(socket.SHUT_WR)
    assert received(connection, 4) == b"bye"
    engine.over.wait()
    assert engine.after == b"input"
