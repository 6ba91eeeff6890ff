"""`backupd run` and commands as processes, with a receiver of notifications, pings, and somebody who scrapes."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families as parse

from tests.support.cli import Cli
from tests.support.daemon import daemon, known_since, wait_until
from tests.support.receiver import Receiver, receiver

TOKEN = "0123456789abcdef-one"
OTHER_TOKEN = "0123456789abcdef-two"
SELDOM = "0 0 1 1 *"


@pytest.fixture
def hook() -> Iterator[Receiver]:
    with receiver() as found:
        yield found


@pytest.fixture
def port() -> int:
    """One that is free now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def make(make_cli: Callable[..., Cli], tmp_path: Path) -> Callable[..., Cli]:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_bytes(b"x" * 100_000)

    def make(plans: dict[str, Any], **settings: Any) -> Cli:
        filled = {name: {"volumes": ["data"], "stores": ["local"], **plan} for name, plan in plans.items()}
        volumes = {"data": {"path": str(tmp_path / "data")}}
        return make_cli(
            engine="mounted", threads=1, log={"format": "json"}, **{"volumes": volumes, "plans": filled, **settings}
        )

    return make


def state_dir(cli: Cli) -> Path:
    return Path(yaml.safe_load(cli.config.read_text())["state_dir"])


def titles(hook: Receiver) -> list[str]:
    return [json.loads(body)["title"].partition(": ")[2] for _, path, body in hook.requests if path.startswith("/hook")]


def pings(hook: Receiver) -> list[str]:
    return [path.partition("?")[0].rpartition("secret")[2] for _, path, _ in hook.requests if path.startswith("/ping")]


def test_a_daemon_that_is_watched(make: Callable[..., Cli], hook: Receiver, port: int) -> None:
    cli = make(
        {"nightly": {"schedule": SELDOM, "ping": {"url": hook.ping}}, "lazy": {"max_age": "1s"}},
        notifications={
            "targets": {"ops": {"url": hook.apprise, "events": ["success", "alert"]}, "odd": {"url": "nosuch://x"}}
        },
        alerts={"check_every": "1s", "free_percent": 0, "free_bytes": 0},
        web={"port": port, "token": TOKEN},
    )
    known_since(state_dir(cli), "2025-01-01T00:00:00Z", "backup of nightly")

    def get(path: str, token: str = TOKEN) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"}
        return httpx.get(f"http://127.0.0.1:{port}{path}", headers=headers, trust_env=False, timeout=60)

    with daemon(cli) as running:
        running.until(lambda: "backup nightly is done" in titles(hook), "the notification")
        running.until(lambda: pings(hook) == ["/start", ""], "the pings")
        running.until(lambda: any(title.startswith("no success for ") for title in titles(hook)), "the alert")
        assert running.says("notifications.targets.odd.url is no URL that Apprise can use")
        assert get("/readyz").json() == {"status": "ok", "reasons": []}
        running.until(lambda: len(get("/api/v1/snapshots").json()["items"]) == 1, "the snapshot")
        (run,) = get("/api/v1/runs?kind=backup").json()["items"]
        assert (run["trigger"], run["outcome"], run["plan"]) == ("catch-up", "done", "nightly")
        assert get("/api/v1/schedule").json()["items"][0]["plan"] == "nightly"
        samples = {
            (sample.name, sample.labels.get("plan", "")): sample.value
            for family in parse(get("/metrics").text)
            for sample in family.samples
            if sample.labels.get("kind", "backup") == "backup" and sample.labels.get("outcome", "done") == "done"
        }
        assert samples["backupd_last_run_success", "nightly"] == 1
        assert samples["backupd_runs_total", "nightly"] == 1
        assert samples["backupd_max_age_seconds", "lazy"] == 1
        assert samples["backupd_volume_plain_bytes", "nightly"] >= 100_000
        assert ("backupd_next_run_timestamp_seconds", "nightly") in samples
        settings = yaml.safe_load(cli.config.read_text())
        cli.config.write_text(yaml.safe_dump(settings | {"web": {"port": port, "token": OTHER_TOKEN}}))
        running.signal(signal.SIGHUP)
        running.wait_for("the new configuration is in use")
        assert get("/api/v1/plans").status_code == 401
        assert get("/api/v1/plans", OTHER_TOKEN).status_code == 200
        assert running.stop() == 0
        assert not any(secret in str(running) for secret in (TOKEN, OTHER_TOKEN, "t0ken", "0f1e2d3c"))
    assert titles(hook).count("backup nightly is done") == 1


def test_a_failure_is_told_although_the_receiver_hangs_and_the_port_is_taken(
    make: Callable[..., Cli], hook: Receiver, port: int, tmp_path: Path
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        cli = make(
            {"nightly": {"schedule": SELDOM, "ping": {"url": hook.ping}}},
            volumes={"data": {"path": str(tmp_path / "nothing")}},
            notifications={"targets": {"ops": {"url": hook.apprise}}, "timeout": "100s", "flush_within": "1s"},
            web={"port": port},
        )
        known_since(state_dir(cli), "2025-01-01T00:00:00Z", "backup of nightly")
        hook.silent.set()
        with daemon(cli) as running:
            running.wait_for(f"cannot serve HTTP on 127.0.0.1 port {port}: Address already in use")
            running.until(lambda: titles(hook) == ["backup nightly FAILED"], "the notification")
            assert running.stop() == 0
            assert running.says("given up: notification to ops: backup nightly FAILED")
    (run,) = cli.json("history")["runs"][:1]
    assert run["outcome"] == "failed"


def test_runs_by_hand_are_told_if_that_is_wanted(make: Callable[..., Cli], hook: Receiver) -> None:
    plans = {"nightly": {"ping": {"url": hook.ping}}}
    targets = {"ops": {"url": hook.apprise, "events": ["success"]}}
    quiet = make(plans, notifications={"targets": targets})
    quiet.run("backup")
    assert hook.requests == []
    make(plans, notifications={"targets": targets, "manual": True}).run("backup")
    wait_until(lambda: len(hook.requests) == 3, "all of them")
    assert (titles(hook), pings(hook)) == (["backup nightly is done"], ["/start", ""])
