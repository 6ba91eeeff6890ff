"""The daemon in its container: its schedule, its metrics, its notifications, and its end by SIGKILL."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import docker
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.compose import Compose
from tests.support.stacks import wait_until

pytestmark = [pytest.mark.docker, pytest.mark.s3, pytest.mark.slow, pytest.mark.timeout(1800)]

METRICS = """
import os, urllib.request
request = urllib.request.Request("http://127.0.0.1:8750/metrics")
request.add_header("Authorization", "Bearer " + open("/run/secrets/backupd_web_token").read())
print(urllib.request.urlopen(request, timeout=60).read().decode())
"""


class Receiver(HTTPServer):
    """Keeps what is sent to it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.got: list[Any] = []


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        self.server.got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *words: object) -> None:
        """Nothing."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_year_in_a_minute(
    make_stack: Callable[..., Compose], e2e_client: docker.DockerClient, receiver: Receiver, tmp_path: Path
) -> None:
    """A schedule fires, its snapshot is in both stores; that is told and counted; after a kill all goes on."""
    urls = {
        "notify": f"json://10.0.2.2:{receiver.server_port}/told",
        "ping": "https://ping.example.org/uuid-of-nightly",
    }
    for name, url in urls.items():
        (tmp_path / name).write_text(url)
    files = {f"BACKUPD_{name.upper()}_URL_FILE": str(tmp_path / name) for name in urls}
    stack = make_stack("docker-compose.daemon.yml", **files)
    shown = stack.backupd("config", "show", "--json")
    assert json.loads(shown)["plans"]["nightly"]["ping"]["url"], "the file of the overlay is read"
    assert "uuid-of-nightly" not in shown
    container = e2e_client.containers.get("contravento-backup-prod")

    def snapshots(store: str) -> set[str]:
        return {found["id"] for found in stack.json("list", "--store", store)["snapshots"]}

    wait_until(lambda: receiver.got, 600)
    first = snapshots("local") & snapshots("offsite")
    assert first
    assert "six-hourly" in json.dumps(receiver.got)
    assert "test-secret-key" not in json.dumps(receiver.got)

    text = stack.run("exec", "-T", "backupd", "python3", "-c", METRICS)
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert any("success" in name for name in families), sorted(families)
    assert any(sample.labels.get("plan") == "six-hourly" for family in families.values() for sample in family.samples)

    before = container.attrs["State"]["StartedAt"]
    stack.run("exec", "-T", "backupd", "sh", "-c", "kill -9 $(cat /proc/1/task/1/children)", code=None)

    def is_up_again() -> bool:
        container.reload()
        state = container.attrs["State"]
        return state["StartedAt"] != before and (state.get("Health") or {}).get("Status") == "healthy"

    wait_until(is_up_again, 600)
    assert container.attrs["RestartCount"] >= 1
    wait_until(lambda: snapshots("local") - first, 600)
    assert stack.json("verify", "--store", "local")["problems"] == []
    assert stack.json("history")
    for name in ("contravento-db-prod", "contravento-redis-prod", "contravento-api-prod"):
        assert e2e_client.containers.get(name).status == "running"
