"""Commands in containers, whose output arrives in whatever pieces the engine sends."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import docker
import pytest

from backupd.engine.docker.commands import run_command
from backupd.services import CommandResult, Service

FRAMES = b"\x01\0\0\0\0\0\0\x06hello\n" + b"\x02\0\0\0\0\0\0\x04oops" + b"\x01\0\0\0\0\0\0\x05again"
HEADER = (
    b"HTTP/1.1 101 UPGRADED\r\n"
    b"Content-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
)


class Engine(threading.Thread):
    """Speaks as a Docker Engine does of one command; `pieces` is how it sends the header and the command's output."""

    def __init__(self, path: Path, pieces: list[bytes]) -> None:
        super().__init__(daemon=True)
        self.pieces = pieces
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()

    def run(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection: socket.socket) -> None:
        with connection:
            received = b""
            while piece := connection.recv(65536):
                received += piece
                head, found, body = received.partition(b"\r\n\r\n")
                if not found or (b"Content-Length: " in head and b"}" not in body):
                    continue
                received = b""
                if b"/start" in head:
                    for part in self.pieces:
                        connection.sendall(part)
                    return
                answer = b'{"Id": "e"}' if b"/exec HTTP" in head else b'{"Running": false, "ExitCode": 3}'
                head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(answer)
                connection.sendall(head + answer)


@pytest.fixture
def client(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[docker.APIClient]:
    path = tmp_path / "engine.sock"
    engine = Engine(path, request.param)
    engine.start()
    with closing(engine.listener), closing(docker.APIClient(f"unix://{path}", version="1.41", timeout=10)) as client:
        yield client
        engine.listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    "client",
    [
        pytest.param([HEADER + FRAMES], id="all at once"),
        pytest.param([HEADER, FRAMES], id="header first"),
        pytest.param([HEADER + FRAMES[:9], FRAMES[9:]], id="in the middle"),
        pytest.param([HEADER + FRAMES[:14], FRAMES[14:]], id="a frame with the header"),
    ],
    indirect=True,
)
def test_output_that_comes_with_the_header_is_not_lost(client: docker.APIClient) -> None:
    service = Service(id="c", name="db", image="redis", image_id="i", state="running")
    said = run_command(client, service, ["redis-cli"], user=None, environment=None, timeout_seconds=10)
    assert said == CommandResult(3, "hello\nagain", "oops")
