"""The daemon in its container: its schedule, its metrics, its notifications, its end by SIGKILL, and its upgrade."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import BytesIO
from typing import Any

import docker
import pytest
from docker.errors import NotFound
from prometheus_client.parser import text_string_to_metric_families

from backupd import __version__
from backupd.errors import LockedError
from tests.e2e.test_stack import OPERATIONS, check, damage, fill, taken_whole
from tests.support.compose import Compose
from tests.support.documents import blocks
from tests.support.stacks import wait_until

pytestmark = [pytest.mark.docker, pytest.mark.s3, pytest.mark.slow, pytest.mark.timeout(1800)]

CONTAINER = "contravento-backup-prod"
SERVICES = ("contravento-db-prod", "contravento-redis-prod", "contravento-api-prod")

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


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def stack(make_stack: Callable[..., Compose], receiver: Receiver, tmp_path_factory: pytest.TempPathFactory) -> Compose:
    urls = {
        "notify": f"json://10.0.2.2:{receiver.server_port}/told",
        "ping": "https://ping.example.org/uuid-of-nightly",
    }
    directory = tmp_path_factory.mktemp("urls")
    for name, url in urls.items():
        (directory / name).write_text(url)
    files = {f"BACKUPD_{name.upper()}_URL_FILE": str(directory / name) for name in urls}
    return make_stack("docker-compose.daemon.yml", **files)


def snapshots(stack: Compose, store: str) -> set[str]:
    return {found["id"] for found in stack.json("list", "--store", store)["snapshots"]}


def test_a_year_in_a_minute(stack: Compose, e2e_client: docker.DockerClient, receiver: Receiver) -> None:
    """A schedule fires, its snapshot is in both stores; that is told and counted; after a kill all goes on."""
    shown = stack.backupd("config", "show", "--json")
    assert json.loads(shown)["plans"]["nightly"]["ping"]["url"], "the file of the overlay is read"
    assert "uuid-of-nightly" not in shown
    container = e2e_client.containers.get(CONTAINER)

    wait_until(lambda: receiver.got, 600)
    first = snapshots(stack, "local") & snapshots(stack, "offsite")
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
    wait_until(lambda: snapshots(stack, "local") - first, 600)
    assert stack.json("verify", "--store", "local")["problems"] == []
    assert stack.json("history")
    for name in SERVICES:
        assert e2e_client.containers.get(name).status == "running"


EARLIER = "0.0.1"
EARLIER_IMAGE = """
FROM {image}
USER root
RUN sed -i 's/^__version__ = .*/__version__ = "{version}"/' /opt/backupd/lib/python3*/site-packages/backupd/__init__.py
USER 10001:10001
"""


def test_an_upgrade_and_the_way_back(stack: Compose, e2e_client: docker.DockerClient) -> None:
    """As it is written, each in the middle of a run by schedule that a service is stopped for."""
    (keep, make, *up, version, verify), back = (block.splitlines() for block in blocks(OPERATIONS, "Upgrade"))
    new = stack.variables["BACKUPD_IMAGE"]
    earlier = EARLIER_IMAGE.format(image=new, version=EARLIER).encode()
    e2e_client.images.build(fileobj=BytesIO(earlier), tag="backupd:latest", rm=True)
    stack.configure(BACKUPD_IMAGE="backupd:latest", TEST_STORAGE_CONSISTENCY="stop")
    stack.run("up", "-d", "--wait", "--wait-timeout", "600")
    fill(stack)
    first = taken_by(stack, EARLIER)
    before, minded = memory(stack), errors(stack)

    *_, image, kept = keep.split()
    e2e_client.images.get(image).tag(*kept.split(":"))
    assert make == "make image"
    e2e_client.images.get(new).tag(*image.split(":"))
    ended = in_the_middle(stack, e2e_client, up, goes_on=True)
    assert ended["outcome"] == "done"
    assert ended["snapshot"] in snapshots(stack, "local")
    assert f"backupd {__version__}" in stack.as_written(version)
    stack.as_written(verify)
    assert_kept(stack, e2e_client, before)
    assert errors(stack) <= minded
    restored(stack, first)
    second = taken_by(stack, __version__)

    before = memory(stack)
    stack.configure(BACKUPD_IMAGE=kept)
    ended = in_the_middle(stack, e2e_client, back, goes_on=False)
    assert ended["outcome"] not in {"running", "done"}
    assert ended["snapshot"] is None
    assert_kept(stack, e2e_client, before)
    restored(stack, second)
    caught_up = [run["snapshot"] for run in stack.json("history")["runs"] if run["trigger"] == "catch-up"]
    assert stack.json("show", caught_up[0])["program"] == f"backupd {EARLIER}"


def in_the_middle(stack: Compose, client: docker.DockerClient, lines: list[str], *, goes_on: bool) -> dict[str, Any]:
    """The last line replaces the container, during a run: how that ended. It can go on, or stands for ever."""
    *first, command = lines
    stack.as_written("\n".join(first))
    replaced = client.containers.get(CONTAINER)
    helper = held(client, f"{stack.project}_backend_storage")
    (run,) = (run["id"] for run in stack.json("history")["runs"] if run["outcome"] == "running")
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(stack.as_written, command)
        wait_until(lambda: b"told to stop" in replaced.logs() or done.done())
        if goes_on:
            helper.unpause()
        done.result(timeout=300)
    assert client.containers.get(CONTAINER).id != replaced.id
    with pytest.raises(NotFound):
        helper.reload()
    stack.run("up", "-d", "--wait", "--wait-timeout", "600")
    (ended,) = (found for found in stack.json("history")["runs"] if found["id"] == run)
    return dict(ended)


def held(client: docker.DockerClient, volume: str) -> Any:
    """The helper that is to read that volume for the next run: it is paused, and the service is stopped by now."""
    paused = None
    with contextlib.closing(client.events(decode=True, filters={"type": "container"})) as events:
        for event in events:
            facts = event["Actor"]["Attributes"]
            if event["Action"] == "start" and "backupd.job" in facts and paused is None:
                with contextlib.suppress(NotFound):
                    helper = client.containers.get(event["id"])
                    reads = "--sparse" in helper.attrs["Config"]["Entrypoint"]
                    if reads and volume in {mount.get("Name") for mount in helper.attrs["Mounts"]}:
                        helper.pause()
                        paused = helper
            if event["Action"] == "die" and facts["name"] == "contravento-api-prod" and paused:
                return paused
    raise AssertionError("no more events")


def taken_by(stack: Compose, version: str) -> str:
    """A snapshot of everything, by hand."""
    taken = taken_whole(stack)
    assert stack.json("show", taken)["program"] == f"backupd {version}"
    return taken


def memory(stack: Compose) -> tuple[str, set[tuple[str, str]], dict[str, set[str]]]:
    """What the state directory and the stores know: the machine's own key, the runs, the snapshots."""
    runs = {(run["id"], run["outcome"]) for run in stack.json("history")["runs"] if run["outcome"] != "running"}
    return stack.json("trust")["key"], runs, {store: snapshots(stack, store) for store in ("local", "offsite")}


def errors(stack: Compose) -> set[str]:
    """What the doctor finds to be broken."""
    findings = json.loads(stack.backupd("doctor", "--json", code=None))["findings"]
    return {finding["subject"] for finding in findings if finding["level"] == "error"}


def assert_kept(stack: Compose, client: docker.DockerClient, before: tuple[Any, ...]) -> None:
    """Nothing that was known is forgotten, nothing stands, nothing is half-done."""
    key, runs, taken = before
    now = memory(stack)
    assert now[0] == key
    assert runs <= now[1]
    assert all(taken[store] <= now[2][store] for store in taken)
    assert stack.backupd("recover") == "nothing was left half-done\n"
    wait_until(lambda: {client.containers.get(name).status for name in SERVICES} == {"running"})


def restored(stack: Compose, snapshot: str) -> None:
    """It brings the data back, as soon as no run by schedule has the volumes."""
    undisturbed(lambda: damage(stack))

    def is_done() -> bool:
        said = json.loads(stack.backupd("restore", snapshot, "--yes", "--json", code=None))
        assert said.get("exit_code", 0) in {0, LockedError.exit_code}, said
        return "error" not in said

    wait_until(is_done, 300)
    stack.run("up", "-d", "--wait", "--wait-timeout", "300")
    undisturbed(lambda: check(stack))


def undisturbed(act: Callable[[], None]) -> None:
    """Again, where a run by schedule had stopped the service that was asked."""

    def is_done() -> bool:
        try:
            act()
        except AssertionError as exc:
            if "stopped state" in str(exc) or "is not running" in str(exc):
                return False
            raise
        return True

    wait_until(is_done, 300)
