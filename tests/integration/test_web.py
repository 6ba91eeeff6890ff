"""The daemon's web server: a real uvicorn, asked over HTTP."""

from __future__ import annotations

import io
import json
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest
from loguru import logger
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse
from pydantic import BaseModel

from backupd.errors import ConfigError, SourceError
from backupd.history import Run
from backupd.log import configure
from backupd.ports import Store
from backupd.settings import LogSettings, load_settings
from backupd.verify.operation import verify
from backupd.verify.result import VerifyRequest
from backupd.web import models
from backupd.web.making import Watched
from backupd.web.server import WebServer
from backupd.wiring import make_runtime, make_stores, secret_values
from tests.support.runtime import BEGIN, RecordingProgress, TickingClock
from tests.support.web import TOKEN, Served, Status, configured, served, snapshot_with_runs

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("web")


@pytest.fixture(scope="module")
def web(base: Path) -> Iterator[Served]:
    """One server over one snapshot; no test changes anything that another looks at."""
    settings = configured(base, "web: {port: 0}")
    snapshot_with_runs(settings)
    with served(settings) as found:
        found.watched._counter.ended(Run(id="ff", kind="backup", plan="nightly", started=BEGIN, outcome="failed"))
        yield found


def test_probes_need_no_token(web: Served) -> None:
    assert web.get("/livez", None).json() == {"status": "ok", "reasons": []}
    assert web.get("/readyz", None).json() == {"status": "ok", "reasons": []}
    assert web.client.head("/livez").status_code == 200
    web.status.ready = False
    try:
        answer = web.get("/readyz", None)
    finally:
        web.status.ready = True
    assert (answer.status_code, answer.json()) == (503, {"status": "not ready", "reasons": ["recovering"]})


@pytest.mark.parametrize("path", ["/metrics", "/api/v1/plans", "/api/v1/runs/aa", "/api/v1/openapi.json", "/", "/no"])
@pytest.mark.parametrize(
    "authorization",
    [None, "Bearer", "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}"],
)
def test_all_else_needs_one(web: Served, path: str, authorization: str | None) -> None:
    answer = web.client.get(path, headers={"Authorization": authorization} if authorization else {})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Bearer realm="backupd"'
    assert answer.json() == {"error": "a token is needed: Authorization: Bearer …", "detail": []}
    assert web.client.get(f"{path}?token={TOKEN}").status_code == 401


def test_headers(web: Served) -> None:
    for answer in (web.get("/livez", None), web.get("/metrics"), web.get("/api/v1/plans", None), web.get("/no")):
        headers = answer.headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert "server" not in headers
    crossing = web.get("/api/v1/plans", Origin="https://evil.example.org")
    assert not [name for name in crossing.headers if name.startswith("access-control")]
    preflight = web.client.options("/api/v1/plans", headers={"Authorization": f"Bearer {TOKEN}", "Origin": "https://x"})
    assert preflight.status_code == 405


def test_a_name_that_somebody_else_made_point_here_is_not_served(web: Served) -> None:
    for path in ("/livez", "/api/v1/plans"):
        assert web.get(path, Host="evil.example.org").status_code == 421
        assert web.get(path, Host=f"localhost:{web.port}").status_code == 200
        assert web.get(path, Host=f"[::1]:{web.port}").status_code == 200


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        ("/api/v1/no", 404, "Not Found"),
        ("/api/v1/plans/hourly", 404, "there is no plan 'hourly'"),
        ("/api/v1/runs/bb", 404, "there is no run 'bb'"),
        ("/api/v1/runs/a", 404, "5 runs begin with 'a'"),
        ("/api/v1/snapshots/ffffffff", 404, "there is no snapshot 'ffffffff'"),
        ("/api/v1/schedule/hourly", 404, "nothing is scheduled for a plan 'hourly'"),
        ("/api/v1/runs/..%2Fetc", 404, "Not Found"),
        ("/api/v1/runs/XYZ", 422, "a parameter is wrong"),
        ("/api/v1/runs?limit=0", 422, "a parameter is wrong"),
        ("/api/v1/runs?limit=501", 422, "a parameter is wrong"),
        ("/api/v1/runs?kind=nothing", 422, "a parameter is wrong"),
        ("/api/v1/snapshots?offset=-1", 422, "a parameter is wrong"),
    ],
)
def test_errors_are_json(web: Served, path: str, status: int, error: str) -> None:
    answer = web.get(path)
    assert answer.status_code == status
    problem = models.Problem.model_validate(answer.json())
    assert problem.error == error
    assert bool(problem.detail) == (status == 422)
    assert web.client.post("/api/v1/plans", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 405


def test_plans(web: Served) -> None:
    page = web.get("/api/v1/plans").json()
    (plan,) = page["items"]
    assert plan == web.get("/api/v1/plans/nightly").json()
    assert (plan["name"], plan["volumes"], plan["stores"], plan["running"]) == ("nightly", ["data"], ["local"], False)
    assert plan["next_run"] == "2026-11-02T02:00:00Z"
    assert (plan["last_run"]["outcome"], plan["last_run"]["error"]) == ("failed", "it is broken")
    assert plan["last_success"] == "2026-11-01T02:00:30Z"


def test_runs_by_pages(web: Served) -> None:
    ids: list[str] = []
    offset: int | None = 0
    while offset is not None:
        page = web.get(f"/api/v1/runs?limit=2&offset={offset}").json()
        assert len(page["items"]) <= 2
        ids += [run["id"][:2] for run in page["items"]]
        offset = page["next_offset"]
    assert ids == ["a4", "a3", "a2", "a1", "a0"]
    chosen = web.get("/api/v1/runs?kind=backup&plan=nightly&outcome=done&outcome=partial").json()["items"]
    assert [run["id"][:2] for run in chosen] == ["a0"]
    assert web.get("/api/v1/runs/a0").json() == chosen[0]
    assert chosen[0]["volumes"]["data"]["warnings"] == 2
    assert web.get("/api/v1/runs?plan=hourly").json()["items"] == []


def test_snapshots(web: Served) -> None:
    page = web.get("/api/v1/snapshots").json()
    (snapshot,) = page["items"]
    assert page["stores"][0]["store"] == "local"
    assert page["stores"][0]["error"] is None
    assert page["stores"][0]["age_seconds"] >= 0
    assert (snapshot["plan"], snapshot["stores"], snapshot["complete"]) == ("nightly", ["local"], True)
    assert (snapshot["drill"]["outcome"], snapshot["drill"]["recovery_seconds"]) == ("proven", 2.5)
    assert snapshot["archives"][0]["plain_bytes"] >= 5000
    assert web.get(f"/api/v1/snapshots/{snapshot['id'][:8]}").json() == snapshot
    for query, count in (("plan=nightly&store=local&volume=data", 1), ("plan=x", 0), ("store=x", 0), ("volume=x", 0)):
        assert len(web.get(f"/api/v1/snapshots?{query}").json()["items"]) == count


def test_what_checks_found(tmp_path: Path) -> None:
    settings = configured(tmp_path, "web: {port: 0}")
    snapshot = snapshot_with_runs(settings)
    with served(settings) as web:

        def states() -> dict[str, float]:
            found = samples(web.get("/metrics").text)
            labels = {"store": "local", "plan": "nightly"}
            names = ("good", "unverified", "damaged")
            return {
                name: found["backupd_snapshot_states", frozenset((labels | {"state": name}).items())] for name in names
            }

        (check,) = web.get(f"/api/v1/snapshots/{snapshot}").json()["checks"].values()
        assert check == {"state": "good", "problem": None, "kind": None, "percent": None, "time": None}  # by its drill
        assert states() == {"good": 1, "unverified": 0, "damaged": 0}
        (archive,) = (tmp_path / "store" / "archives" / "data").glob("*.tar.zst")
        archive.chmod(0o600)
        archive.write_bytes(archive.read_bytes()[:-1])
        runtime = make_runtime(settings, RecordingProgress())
        assert verify(make_stores(settings, ["local"]), VerifyRequest(plan="nightly"), runtime, Random(0)).problems
        web.watched._view.look()  # nobody has told it: what the store lists has changed
        check = web.get(f"/api/v1/snapshots/{snapshot}").json()["checks"]["local"]
        assert (check["state"], check["kind"], check["percent"]) == ("damaged", "sizes", 0)
        assert "data" in check["problem"]
        assert states() == {"good": 0, "unverified": 0, "damaged": 1}


def test_what_has_left_the_configuration_grows_old_without_a_word(tmp_path: Path) -> None:
    settings = configured(tmp_path, "web: {port: 0}")
    snapshot_with_runs(settings)
    config = tmp_path / "backupd.yaml"
    config.write_text(config.read_text().replace("nightly: {", "weekly: {"))
    with served(load_settings(config, {"BACKUPD_WEB__TOKEN": TOKEN})) as web:
        text = web.get("/metrics").text
        assert samples(text)["backupd_snapshots", frozenset({("store", "local"), ("plan", "nightly")})] == 1
        assert "backupd_newest_snapshot_timestamp_seconds{" not in text


def test_schedule(web: Served) -> None:
    assert [one["kind"] for one in web.get("/api/v1/schedule").json()["items"]] == ["backup", "drill"]
    assert len(web.get("/api/v1/schedule/nightly").json()) == 2
    assert web.get("/api/v1/schedule?plan=x").json()["items"] == []
    running, waiting = web.get("/api/v1/queue").json()["items"]
    assert (running["kind"], running["state"], running["run"], running["waits_for"]) == (
        "prune", "running", "ab" * 8, None,
    )  # fmt: skip
    assert (waiting["kind"], waiting["state"], waiting["run"], waiting["waits_for"]) == (
        "backup", "waiting", None, "the prune",
    )  # fmt: skip
    assert web.get("/api/v1/queue?plan=nightly").json()["items"] == [waiting]


def test_openapi_describes_the_answers(web: Served) -> None:
    document: dict[str, Any] = web.get("/api/v1/openapi.json").json()
    assert document["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"
    paths: dict[str, type[BaseModel]] = {
        "/api/v1/plans": models.Page[models.Plan], "/api/v1/plans/nightly": models.Plan,
        "/api/v1/snapshots": models.Snapshots, "/api/v1/runs": models.Page[models.Run], "/api/v1/runs/a0": models.Run,
        "/api/v1/schedule": models.Page[models.Scheduled], "/api/v1/queue": models.Page[models.Activity],
        "/livez": models.Probe,
    }  # fmt: skip
    for path, model in paths.items():
        answer = web.get(path).json()
        assert model.model_validate_json(json.dumps(answer)).model_dump(mode="json") == answer
    for path, item in document["paths"].items():
        for operation in item.values():
            assert operation["summary"], path
            if path not in {"/livez", "/readyz"}:
                assert operation["security"] == [{"HTTPBearer": []}], path
                assert {"401", "403", "503"} <= set(operation["responses"]), path
            if path.startswith("/api") and not path.endswith("/schedule/{plan}"):
                schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
                name = schema["$ref"].rpartition("/")[2]
                assert document["components"]["schemas"][name]["properties"], path


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parse(text)
        for sample in family.samples
    }


def test_metrics(web: Served, base: Path) -> None:
    answer = web.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    found = samples(answer.text)

    def value(name: str, **labels: str) -> float:
        return found[f"backupd_{name}", frozenset(labels.items())]

    backup = {"kind": "backup", "plan": "nightly"}
    begin = BEGIN.timestamp()
    assert value("last_success_timestamp_seconds", **backup) == begin + 30
    assert value("last_run_timestamp_seconds", **backup) == begin + 4 * 3600 + 30
    assert value("last_run_success", **backup) == 0
    assert value("last_run_success", kind="drill", plan="nightly") == 1
    assert value("last_run_success", kind="prune", plan="") == 0
    assert value("last_run_duration_seconds", **backup) == 30
    assert value("next_run_timestamp_seconds", **backup) == begin + 86400
    assert value("runs_total", **backup, outcome="failed") == 1
    assert value("runs_total", **backup, outcome="partial") == 0
    assert value("volume_plain_bytes", plan="nightly", volume="data") >= 5000
    assert value("volume_warnings", plan="nightly", volume="data") == 2
    assert value("service_downtime_seconds", plan="nightly", service="redis") == 0.25
    assert value("store_up", store="local") == 1
    stored = sum(path.stat().st_size for path in (base / "store").rglob("*") if path.is_file())
    assert value("store_size_bytes", store="local") == stored
    assert value("snapshots", store="local", plan="nightly") == 1
    assert value("newest_snapshot_timestamp_seconds", store="local", plan="nightly", volume="data") > begin - 86400
    assert value("drill_success", store="local", plan="nightly", volume="data") == 1
    assert value("drill_recovery_seconds", store="local", plan="nightly", volume="data") == 2.5
    assert value("newest_good_snapshot_timestamp_seconds", store="local", plan="nightly") > begin - 86400
    assert value("running", kind="prune", plan="") == 0
    assert value("free_bytes", place="store local") > 0
    assert value("ready") == 1
    assert value("config_last_reload_successful") == 1
    assert any(name == "process_resident_memory_bytes" for name, _ in found)
    openmetrics = web.get("/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert openmetrics.headers["content-type"].startswith("application/openmetrics-text")
    assert len(list(parse_openmetrics(openmetrics.text))) > 20


def test_names_of_metrics(web: Served) -> None:
    for family in parse(web.get("/metrics").text):
        if family.name.startswith("backupd_"):
            assert family.documentation.endswith("."), family.name
            if family.name.endswith("timestamp_seconds") or "seconds" in family.name:
                assert family.name.endswith("_seconds")
            assert not re.search(r"_(ms|minutes|kib|mib|percent)\b", family.name)
            assert (family.type == "counter") == any(sample.name.endswith("_total") for sample in family.samples) or (
                not family.samples
            )


def test_a_history_that_cannot_be_read_is_a_503_and_no_probe_minds(tmp_path: Path) -> None:
    settings = configured(tmp_path, "web: {port: 0}")
    with served(settings) as web:
        (tmp_path / "state" / "history.sqlite").write_text("no database, and long enough to be told from one" * 20)
        for path in ("/api/v1/runs", "/metrics"):
            answer = web.get(path)
            assert answer.status_code == 503
            assert "history.sqlite cannot be used" in answer.json()["error"]
        assert web.get("/readyz", None).status_code == 200


def test_before_anything_has_happened(tmp_path: Path) -> None:
    with served(configured(tmp_path, "web: {port: 0}")) as web:
        found = samples(web.get("/metrics").text)
        assert found["backupd_snapshots", frozenset({("store", "local"), ("plan", "nightly")})] == 0
        assert not any(name == "backupd_last_run_success" for name, _ in found)
        assert web.get("/api/v1/plans/nightly").json()["last_run"] is None
        assert web.get("/api/v1/snapshots").json()["items"] == []


def test_without_a_token_there_are_only_probes(tmp_path: Path) -> None:
    with served(configured(tmp_path, "web: {port: 0}", token=None)) as web:
        assert web.get("/livez").status_code == 200
        answer = web.get("/metrics", "anything")
        assert (answer.status_code, answer.json()["error"]) == (
            403, "no token is configured (web.token): only the probes are served",
        )  # fmt: skip
        assert web.get("/metrics", None).status_code == 403


def test_other_hosts(tmp_path: Path) -> None:
    with served(configured(tmp_path, "web: {port: 0, host: 0.0.0.0}")) as web:
        assert web.get("/livez", Host="anything").status_code == 200
    with served(configured(tmp_path, "web: {port: 0, host: 0.0.0.0, allowed_hosts: [backupd]}")) as web:
        assert web.get("/livez", Host="backupd:8750").status_code == 200
        assert web.get("/livez", Host="anything").status_code == 421


def test_a_port_that_is_taken_is_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        message = rf"cannot serve HTTP on 127\.0\.0\.1 port {port}: Address already in use"
        with pytest.raises(ConfigError, match=message), WebServer(lambda: None, "127.0.0.1", port):  # type: ignore[arg-type, return-value]
            pass
    with pytest.raises(ConfigError, match=r"cannot serve HTTP on nosuch\.invalid"):
        WebServer(lambda: None, "nosuch.invalid", 1).__enter__()  # type: ignore[arg-type, return-value]


def test_it_stops_and_can_be_started_again_on_its_port(tmp_path: Path) -> None:
    settings = configured(tmp_path)
    watched = Watched(settings, TickingClock(), print)
    port = 0
    for _ in range(3):
        with WebServer(lambda: watched.app(Status()), "127.0.0.1", port) as server:
            port = server.port
            assert httpx.get(f"http://127.0.0.1:{port}/livez", trust_env=False, timeout=60).status_code == 200
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"http://127.0.0.1:{port}/livez", trust_env=False, timeout=60)


def test_a_slow_store_holds_up_nobody(tmp_path: Path) -> None:
    settings = configured(tmp_path, "web: {port: 0}")
    snapshot_with_runs(settings)
    with served(settings) as web:
        view, gate, entered = web.watched._view, threading.Event(), threading.Event()
        opened = view._open

        def slow(name: str) -> Any:
            entered.set()
            gate.wait(60)
            return opened(name)

        view._open = slow
        with web.watched._looking():
            assert entered.wait(60)
            assert web.get("/livez", None).status_code == 200
            assert len(web.get("/api/v1/snapshots").json()["items"]) == 1
            assert ("backupd_store_up", frozenset({("store", "local")})) in samples(web.get("/metrics").text)
            gate.set()


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (SourceError("the disk is gone"), "the disk is gone"),
        (KeyError("oh"), "this should not have happened: KeyError: 'oh'"),
    ],
)
def test_a_store_that_fails_keeps_its_last_view(tmp_path: Path, error: Exception, text: str) -> None:
    settings = configured(tmp_path, "web: {port: 0}")
    snapshot_with_runs(settings)
    with served(settings) as web:

        def broken(name: str) -> Any:
            raise error

        web.watched._view._open = broken
        web.watched._view.look()
        page = web.get("/api/v1/snapshots").json()
        assert (len(page["items"]), page["stores"][0]["error"]) == (1, text)
        assert samples(web.get("/metrics").text)["backupd_store_up", frozenset({("store", "local")})] == 0


def test_what_is_known_is_not_read_again(tmp_path: Path) -> None:
    settings = configured(tmp_path, "web: {port: 0}")
    snapshot_with_runs(settings)
    with served(settings) as web:
        view = web.watched._view
        opened, read = view._open, []

        class Counted:
            def __init__(self, store: Store) -> None:
                self._store = store

            def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
                read.append(key)
                return self._store.read(key, offset, length)

            def __getattr__(self, name: str) -> Any:
                return getattr(self._store, name)

        view._open = lambda name: Counted(opened(name))
        view.look()
        assert read == []
        view.ended(Run(id="aa", kind="verify", started=BEGIN, outcome="done"))
        view.look()
        assert len(read) == 3  # the repository's document, the manifest, the drill
        snapshot_with_runs(settings)
        view.look()
        assert len(web.get("/api/v1/snapshots").json()["items"]) == 2


def test_a_run_brings_a_new_view(tmp_path: Path) -> None:
    settings = configured(tmp_path, "web: {port: 0, refresh: 30d}")
    with served(settings) as web, web.watched._looking():
        assert web.get("/api/v1/snapshots").json()["items"] == []
        snapshot_with_runs(settings)
        for watcher in web.watched.watchers:
            watcher.ended(Run(id="ee", kind="backup", plan="nightly", started=BEGIN, outcome="done"))
        for _ in range(600):
            if web.get("/api/v1/snapshots").json()["items"]:
                break
            threading.Event().wait(0.1)
        assert len(web.get("/api/v1/snapshots").json()["items"]) == 1
        assert web.watched._view.newest("nightly") is not None


def test_the_access_log_has_no_token(tmp_path: Path) -> None:
    settings = configured(tmp_path, "web: {port: 0}")
    stream = io.StringIO()
    configure(LogSettings(level="debug"), secret_values(settings), stream)
    try:
        with served(settings) as web:
            web.get(f"/api/v1/plans?token={TOKEN}")
            web.get("/api/v1/plans", None)
            web.get("/api/v1/%1b[31m", None)
    finally:
        logger.remove()
    text = stream.getvalue()
    assert TOKEN not in text
    assert "GET /api/v1/plans?token=******** 200" in text
    assert "GET /api/v1/plans 401" in text
    assert "\x1b" not in text
