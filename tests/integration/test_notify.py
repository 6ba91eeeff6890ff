"""Notifications and pings to a real receiver: one that answers, fails, hangs, or is not there."""

from __future__ import annotations

import json
import logging
import socket
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from backupd.errors import BackupdError, ConfigError, PartialFailure
from backupd.history import History, Run, VolumeFigures
from backupd.observe import Observers, make_observers
from backupd.runs import Recorder
from backupd.settings import load_settings
from tests.support.cli import Cli
from tests.support.receiver import Receiver, receiver
from tests.support.runtime import CountingIds, TickingClock
from tests.support.seaweedfs import make_certificates

SECRETS = ("s3cr3t-t0ken-in-the-path", "0f1e2d3c-secret")
MIB = 1024**2


@pytest.fixture
def hook() -> Iterator[Receiver]:
    with receiver() as found:
        yield found


@pytest.fixture
def closed() -> str:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


class Daemon:
    """A recorder with what watches it, as the daemon has."""

    def __init__(self, base: Path, more: str, environment: dict[str, str]) -> None:
        (base / "volume").mkdir(exist_ok=True)
        (base / "backupd.yaml").write_text(
            f"engine: mounted\nproject: web\nstate_dir: {base}/state\n"
            f"stores: {{local: {{type: local, path: {base}/store}}}}\n"
            f"volumes: {{data: {{path: {base}/volume}}}}\n{more}"
        )
        (base / "state").mkdir(exist_ok=True)
        self.config = base / "backupd.yaml"
        self.settings = load_settings(self.config, environment)
        self.history = History(base / "state")
        self.said: list[str] = []
        clock = TickingClock()
        self.observers: Observers = make_observers(self.settings, self.history, clock, self.said.append)
        self.recorder = Recorder(self.history, clock, CountingIds(), self.said.append, self.observers.watchers)

    def run(self, error: BackupdError | None = None, megabytes: int = 100, plan: str = "default") -> Run:
        figures = VolumeFigures(
            plain_bytes=megabytes * MIB, new_bytes=1, stored_bytes=1, files=1, warnings=0, seconds=1, full=True
        )
        try:
            with self.recorder.run("backup", plan, "schedule") as draft:
                draft.set(volumes={"data": figures}, snapshot="00ff00ff00ff00ff", stores=["local"])
                if error:
                    raise error
        except BackupdError:
            pass
        return self.history.runs(limit=1)[0]


@pytest.fixture
def daemon(tmp_path: Path) -> Callable[..., Daemon]:
    return lambda more="", **environment: Daemon(tmp_path, more, environment)


def test_what_arrives(hook: Receiver, daemon: Callable[..., Daemon]) -> None:
    secret = hook.apprise.rpartition("/")[2]
    running = daemon(
        "notifications: {targets: {ops: {events: [failure, recovery]}, all: {events: [success, failure]}}}",
        BACKUPD_NOTIFICATIONS__TARGETS__OPS__URL=hook.apprise,
        BACKUPD_NOTIFICATIONS__TARGETS__ALL__URL=f"{hook.apprise}?+X=1",
    )
    running.run()
    running.run(PartialFailure(f"store offsite refused {secret} at {hook.apprise}"))
    running.run(ConfigError("broken"))
    running.run()
    running.run()
    running.observers.__exit__(None, None, None)
    sent = hook.messages(6)
    assert sorted((message["type"], message["title"]) for message in sent) == [
        ("failure", "web: backup default FAILED"),
        ("failure", "web: backup default FAILED"),
        ("success", "web: backup default is back to normal"),
        ("success", "web: backup default is done"),
        ("success", "web: backup default is done"),
        ("success", "web: backup default is done"),
    ]
    assert running.said == []
    assert running.observers.deliveries.by_outcome() == {("target ops", "delivered"): 2, ("target all", "delivered"): 4}


def test_no_secret_is_in_a_notification(hook: Receiver, daemon: Callable[..., Daemon]) -> None:
    running = daemon(
        f"notifications: {{targets: {{ops: {{url: '{hook.apprise}'}}}}}}\n"
        f"plans: {{default: {{volumes: [data], stores: [local], ping: {{url: '{hook.ping}'}}}}}}"
    )
    running.run(ConfigError(f"{hook.apprise} {hook.ping} {' '.join(SECRETS)}"))
    running.observers.__exit__(None, None, None)
    assert len(hook.requests) == 3
    for _, _, body in hook.requests:
        assert not any(secret in body.decode() for secret in SECRETS), body
    assert sum("********" in body.decode() for _, _, body in hook.requests) == 2


def test_a_receiver_that_fails_is_tried_again_said_and_recorded(
    hook: Receiver, daemon: Callable[..., Daemon], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backupd.notify.outbox._PAUSES", (0.01,))
    running = daemon(f"notifications: {{targets: {{ops: {{url: '{hook.apprise}', events: [success]}}}}}}")
    hook.answers += [500, 503, 200]
    first = running.run()
    running.observers.flush()
    assert len(hook.requests) == 3
    assert running.said == []
    hook.answers += [500] * 3
    second = running.run()
    running.observers.__exit__(None, None, None)
    assert len(hook.requests) == 6
    (said,) = running.said
    assert said.startswith("notification to ops failed: not delivered: ")
    assert "500" in said
    assert [run.outcome for run in (first, second)] == ["done", "done"]
    (kept,) = running.history.find(second.id)
    assert (kept.outcome, kept.notes) == ("done", [said])
    assert not any(secret in said for secret in SECRETS)


def test_nobody_listens(daemon: Callable[..., Daemon], closed: str, caplog: pytest.LogCaptureFixture) -> None:
    running = daemon(
        "notifications: {attempts: 1, targets: {ops: "
        f"{{url: 'json://127.0.0.1:{closed}/s3cr3t-t0ken-in-the-path', events: [success]}}}}}}\n"
        f"plans: {{default: {{volumes: [data], stores: [local], ping: {{url: 'http://127.0.0.1:{closed}/0f1e2d3c-secret'}}}}}}"
    )
    with caplog.at_level(logging.DEBUG):
        run = running.run()
        running.observers.__exit__(None, None, None)
    assert run.outcome == "done"
    assert sorted(line.partition(":")[0] for line in running.said) == [
        "notification to ops failed",
        "ping failed",
        "ping failed",
    ]
    assert not any(secret in " ".join(running.said) for secret in SECRETS)
    assert running.observers.deliveries.by_outcome() == {("target ops", "failed"): 1, ("ping default", "failed"): 2}


def test_a_receiver_that_hangs_holds_up_nobody(hook: Receiver, daemon: Callable[..., Daemon]) -> None:
    with receiver() as other:
        running = daemon(
            "notifications:\n  flush_within: 1s\n  timeout: 60s\n  targets:\n"
            f"    hanging: {{url: '{hook.apprise}', events: [success]}}\n"
            f"    well: {{url: '{other.apprise}', events: [success]}}"
        )
        hook.silent.set()
        assert running.run().outcome == "done"
        assert running.run().outcome == "done"
        assert len(other.messages(2)) == 2
        running.observers.__exit__(None, None, None)
        hanging = "given up: notification to hanging: backup default is done"
        assert running.said == [hanging, hanging]


def test_pings(hook: Receiver, daemon: Callable[..., Daemon]) -> None:
    running = daemon(
        "plans: {default: {volumes: [data], stores: [local]}}", BACKUPD_PLANS__DEFAULT__PING__URL=f"{hook.ping}?x=1"
    )
    running.run()
    running.run(PartialFailure("redis is missing"))
    running.recorder.skipped("backup", "default", "schedule", "the one before still runs")
    with running.recorder.run("prune", "default"):
        pass
    with running.recorder.run("backup", "default", part=True):
        pass
    running.observers.__exit__(None, None, None)
    start, good, start_again, bad = hook.wait(4)
    assert len(hook.requests) == 4
    paths = [urlsplit(path).path.rpartition("0f1e2d3c-secret")[2] for _, path, _ in hook.requests]
    assert paths == ["/start", "", "/start", "/fail"]
    rids = [parse_qs(urlsplit(path).query)["rid"][0] for _, path, _ in hook.requests]
    assert rids[0] == rids[1] != rids[2] == rids[3]
    assert str(uuid.UUID(rids[0])) == rids[0]
    assert all("x=1" in path for _, path, _ in hook.requests)
    assert start[2] == start_again[2] == b""
    assert good[2].startswith(b"backup default is done\nsnapshot 00ff00ff in local\n")
    assert bad[2].startswith(b"backup default is done in part\nerror: redis is missing\n")


def test_explicit_urls_are_called_as_they_are(hook: Receiver, daemon: Callable[..., Daemon]) -> None:
    base = f"http://127.0.0.1:{hook.port}"
    running = daemon(
        "plans: {default: {volumes: [data], stores: [local],"
        f" ping: {{method: GET, success: '{base}/up?s=1', failure: '{base}/down?s=1'}}}}}}"
    )
    running.run()
    running.run(ConfigError("x"))
    running.observers.__exit__(None, None, None)
    assert [(method, path) for method, path, _ in hook.requests] == [("GET", "/up?s=1"), ("GET", "/down?s=1")]


@pytest.mark.parametrize(
    ("answers", "body", "count", "said"),
    [
        ([404], b"", 1, "the answer was HTTP 404"),
        ([429, 429, 429], b"", 3, "the answer was HTTP 429"),
        ([503, 200], b"OK", 2, None),
        ([200], b"OK (not found)", 1, "the receiver knows no such check"),
    ],
)
def test_answers_to_pings(
    hook: Receiver, daemon: Callable[..., Daemon], answers: list[int], body: bytes, count: int, said: str | None
) -> None:
    running = daemon(
        f"plans: {{default: {{volumes: [data], stores: [local], ping: {{success: 'http://127.0.0.1:{hook.port}/'}}}}}}"
    )
    running.observers.outbox._pauses = (0.01,)
    hook.answers += answers
    hook.body = body
    run = running.run()
    running.observers.__exit__(None, None, None)
    assert len(hook.requests) == count
    assert running.said == ([f"ping failed: {said}"] if said else [])
    assert running.history.find(run.id)[0].notes == running.said


def test_a_proxy_is_used(hook: Receiver, daemon: Callable[..., Daemon], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{hook.port}")
    monkeypatch.setenv("no_proxy", "")
    running = daemon(
        "plans: {default: {volumes: [data], stores: [local], ping: {success: 'http://ping.example.org/x'}}}"
    )
    running.run()
    running.observers.__exit__(None, None, None)
    assert [path for _, path, _ in hook.requests] == ["http://ping.example.org/x"]


def test_authorities_of_ones_own(
    tmp_path: Path, daemon: Callable[..., Daemon], monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = make_certificates(tmp_path)
    with receiver(tmp_path) as secure:
        running = daemon(
            f"notifications: {{attempts: 1, targets: {{ops: {{url: '{secure.apprise}', events: [success]}}}}}}\n"
            f"plans: {{default: {{volumes: [data], stores: [local], ping: {{success: '{secure.ping}'}}}}}}"
        )
        monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
        monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)
        running.run()
        running.observers.flush()
        assert secure.requests == []
        assert (
            "ping failed: the certificate is not trusted (REQUESTS_CA_BUNDLE names a file of authorities)"
            in running.said
        )
        assert len(running.said) == 2
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority))
        running.run()
        running.observers.flush()
        assert len(secure.requests) == 2
        assert len(running.said) == 2


def test_alerts_arrive(hook: Receiver, daemon: Callable[..., Daemon]) -> None:
    running = daemon(f"notifications: {{targets: {{ops: {{url: '{hook.apprise}', events: [alert, recovery]}}}}}}")
    for megabytes in (100, 101, 99):
        running.run(megabytes=megabytes)
    running.observers.watchdog.check()
    running.run(megabytes=20)
    running.observers.watchdog.check()
    running.observers.watchdog.check()
    running.run(megabytes=100)
    running.observers.watchdog.check()
    running.observers.__exit__(None, None, None)
    assert [(message["type"], message["title"]) for message in hook.messages(2)] == [
        ("warning", "web: volume data of plan default has shrunk: 20.0 MiB, usually 100 MiB"),
        ("success", "web: no longer an alert: volume data of plan default has a usual size: 100 MiB, usually 100 MiB"),
    ]


def test_the_watchdog_looks_after_a_run_by_itself(hook: Receiver, daemon: Callable[..., Daemon]) -> None:
    running = daemon(
        f"notifications: {{targets: {{ops: {{url: '{hook.apprise}', events: [alert]}}}}}}\nalerts: {{check_every: 30d}}"
    )
    running.observers.__enter__()
    running.run(megabytes=100)
    running.run(megabytes=20)
    assert "shrunk" in hook.messages(1)[0]["title"]
    running.observers.__exit__(None, None, None)


def test_a_url_that_apprise_does_not_know(daemon: Callable[..., Daemon], hook: Receiver) -> None:
    running = daemon(
        "notifications:\n  targets:\n    ops: {url: 'nosuch://s3cr3t-t0ken-in-the-path/x'}\n"
        f"    well: {{url: '{hook.apprise}', events: [success]}}"
    )
    running.run()
    running.observers.flush()
    assert len(hook.requests) == 1
    (said,) = running.said
    assert said.startswith("notifications.targets.ops.url is no URL that Apprise can use")
    assert said.endswith(": nobody is notified there")
    checked = Cli(running.config).error("config", "check", code=2)
    assert "notifications.targets.ops.url is no URL that Apprise can use" in checked
    assert "s3cr3t" not in said + checked


def test_the_command(hook: Receiver, daemon: Callable[..., Daemon], closed: str) -> None:
    cli = Cli(daemon().config)
    assert "there is nobody to notify" in cli.error("notify", "test", code=2)
    with (cli.config).open("a") as file:
        file.write(
            f"notifications: {{targets: {{ops: {{url: '{hook.apprise}'}}}}}}\n"
            f"plans: {{default: {{volumes: [data], stores: [local], ping: {{url: '{hook.ping}'}}}}}}\n"
        )
    assert cli.run("notify", "test", "--pings").stdout == "target ops: delivered\nping default: delivered\n"
    assert json.loads(hook.wait(2)[0][2])["title"] == "web: this is a test"
    with_dead = Cli(
        cli.config, {"BACKUPD_NOTIFICATIONS__TARGETS__DEAD__URL": f"json://127.0.0.1:{closed}/s3cr3t-t0ken"}
    )
    failed = with_dead.run("notify", "test", "-v", "--json", code=3)
    assert "1 of 2 did not take it: target dead" in failed.stderr
    assert "s3cr3t" not in failed.stdout + failed.stderr
    document = json.loads(failed.stdout)
    assert [(one["name"], one["error"] is None) for one in document["receivers"]] == [
        ("target ops", True),
        ("target dead", False),
    ]


def test_problems_of_settings(daemon: Callable[..., Daemon]) -> None:
    with pytest.raises(ConfigError) as error:
        daemon(
            "notifications: {title: $nix, targets: {a: {events: [never]}, b: {url: nothing, plans: [nightly]}}}\n"
            "plans: {default: {volumes: [data], stores: [local], notify: [succes], ping: {url: 'ftp://x'}}}\n"
            "web: {token: tooshort}\nalerts: {shrink: 101}"
        )
    text = str(error.value)
    for expected in (
        "notifications.title: a template knows no $nix",
        "notifications.targets.a.url: a URL of Apprise is missing",
        "notifications.targets.b.url: expected a URL of Apprise",
        "there is no plan 'nightly'",
        "plans.default.ping.url: expected a URL that begins with https:// or http://",
        "web.token: expected at least 16",
        "alerts.shrink: expected at most 100, not 101",
    ):
        assert expected in text, text
    assert "tooshort" not in text
