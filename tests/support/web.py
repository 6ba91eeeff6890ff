"""A daemon's web server over what a configuration says, on a free port."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import httpx

from backupd.backup import back_up
from backupd.history import History, Outcome, Run, RunKind, VolumeFigures
from backupd.repository import DrillRecord, Repository, VolumeDrill, keep_drill
from backupd.settings import Settings, load_settings
from backupd.status import Activity, DaemonStatus, NextRun
from backupd.web.making import Watched
from backupd.web.server import WebServer
from backupd.wiring import make_plan, make_runtime, make_stores
from tests.support.runtime import BEGIN, RecordingProgress, TickingClock

TOKEN = "0123456789abcdef-the-token"


@dataclass
class Status:
    """What the daemon says of itself, when it is ready or not."""

    ready: bool = True

    def status(self) -> DaemonStatus:
        """See StatusSource."""
        return DaemonStatus(
            process="",
            program="backupd",
            started=BEGIN,
            beat=BEGIN,
            ready=self.ready,
            configured=BEGIN,
            next_runs=[_due("drill", 2), _due("backup", 1)],
            activities=[
                Activity(kind="prune", plan=None, trigger="schedule", since=BEGIN, id="ab" * 8),
                Activity(kind="backup", plan="nightly", trigger="catch-up", since=BEGIN, waits_for="the prune"),
            ],
        )


def _due(kind: RunKind, days: int) -> NextRun:
    at = BEGIN + timedelta(days=days)
    return NextRun(kind=kind, plan="nightly", schedule="0 2 * * *", timezone="Europe/Madrid", at=at)


def configured(base: Path, more: str = "", token: str | None = TOKEN) -> Settings:
    (base / "volume").mkdir(exist_ok=True)
    (base / "volume" / "file").write_bytes(b"x" * 5000)
    (base / "backupd.yaml").write_text(
        f"engine: mounted\nproject: web\nstate_dir: {base}/state\n"
        f"stores: {{local: {{type: local, path: {base}/store}}}}\nvolumes: {{data: {{path: {base}/volume}}}}\n"
        f"plans: {{nightly: {{volumes: [data], stores: [local], schedule: '0 2 * * *', max_age: 26h}}}}\n{more}"
    )
    return load_settings(base / "backupd.yaml", {"BACKUPD_WEB__TOKEN": token} if token else {})


def snapshot_with_runs(settings: Settings) -> str:
    """A real snapshot, a drill of it, and runs: a good one, a failed one, one of each other kind. The snapshot's id."""
    runtime = make_runtime(settings, RecordingProgress())
    result = back_up(make_plan(settings, "nightly", runtime.engine), runtime, make_stores(settings, ["local"]))
    manifest = result.manifest
    repository = Repository.open(make_stores(settings, ["local"])[0], threads=1, security=runtime.security)
    drilled = VolumeDrill(volume="data", outcome="proven", moment=BEGIN, restore_seconds=1, recovery_seconds=2.5)
    record = DrillRecord(
        id="20261101T020000Z-0000000d",
        snapshot=manifest.id,
        plan="nightly",
        time=BEGIN,
        finished=BEGIN,
        host="h",
        program="p",
        engine="mounted",
        outcome="proven",
        recovery_seconds=2.5,
        age_seconds=9,
        volumes=[drilled],
    )
    keep_drill(repository, record, Path(settings.state_dir))
    archive = manifest.archives[0]
    figures = VolumeFigures(
        plain_bytes=archive.plain_size, new_bytes=archive.new_size, stored_bytes=archive.stored_size,
        files=archive.members, warnings=2, seconds=1.5, full=True,
    )  # fmt: skip
    history = History(Path(settings.state_dir))
    kinds: list[tuple[RunKind, Outcome]] = [
        ("backup", "done"), ("verify", "done"), ("drill", "done"), ("prune", "failed"), ("backup", "failed"),
    ]  # fmt: skip
    for number, (kind, outcome) in enumerate(kinds):
        time = BEGIN + timedelta(hours=number)
        good = (kind, outcome) == ("backup", "done")
        history.put(
            Run(
                id=f"{number + 0xA0:02x}" * 8,
                kind=kind,
                plan=None if kind == "prune" else "nightly",
                trigger="schedule",
                started=time,
                finished=time + timedelta(seconds=30),
                outcome=outcome,
                warnings=2 if good else 0,
                snapshot=manifest.id if good else None,
                stores=["local"] if good else [],
                exit_code=0 if good else 1,
                volumes={"data": figures} if good else {},
                downtime={"redis": 0.25} if good else {},
                error=None if outcome == "done" else "it is broken",
            )
        )
    return manifest.id


@dataclass
class Served:
    """A running server and how to ask it."""

    watched: Watched
    status: Status
    client: httpx.Client
    port: int

    def get(self, path: str, token: str | None = TOKEN, **headers: str) -> httpx.Response:
        sent = headers | ({"Authorization": f"Bearer {token}"} if token else {})
        return self.client.get(path, headers=sent)


@contextmanager
def served(settings: Settings) -> Iterator[Served]:
    """With the stores looked at once."""
    watched, status = Watched(settings, TickingClock(), print), Status()
    watched._view.look()
    watched._observers.watchdog.check()
    with (
        WebServer(lambda: watched.app(status), settings.web.host, settings.web.port) as server,
        httpx.Client(base_url=f"http://127.0.0.1:{server.port}", trust_env=False, timeout=60) as client,
    ):
        yield Served(watched, status, client, server.port)
