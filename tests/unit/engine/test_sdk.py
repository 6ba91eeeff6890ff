"""An Engine that is older than what is called."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from backupd.doctor import Check, examine
from backupd.doctor.engine import look_at_engine
from backupd.engine import DockerEngine, DockerOptions


class OldEngine(BaseHTTPRequestHandler):
    """Says its version, and knows nothing else."""

    version = "1.39"

    def do_GET(self) -> None:
        known = self.path.endswith("/version")
        body = json.dumps({"ApiVersion": self.version, "Version": "18.09.9"} if known else {"message": "no"}).encode()
        self.send_response(200 if known else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nobody wants to know."""


@pytest.fixture
def address() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), OldEngine) as server:
        thread = Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield f"tcp://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_the_doctor_says_that_it_is_too_old_and_what_to_do(address: str, tmp_path: Path) -> None:
    engine = DockerEngine(DockerOptions(tmp_path, host=address))
    (finding,) = examine([Check("engine", "engine", lambda: look_at_engine(engine))])
    assert finding.result.level == "error"
    assert finding.result.text == f"the Docker Engine at {address} is too old: it speaks API 1.39"
    assert finding.result.advice == "update Docker there: backupd needs API 1.40 (Docker 19.03) or newer"
