"""`backupd run` as a process: fires, catches up, waits, skips, stops, re-reads its configuration, recovers."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from backupd.engine.confine import unconfined
from backupd.lock import volume_lock
from backupd.model import Volume
from tests.support.apt import NotInstallable
from tests.support.cli import Cli
from tests.support.daemon import PATIENCE_SECONDS, Running, daemon, known_since, wait_until
from tests.support.faketime import FakeClock, library
from tests.support.freezer import frozen, stopped
from tests.support.zones import NAME, soon

LONG_AGO = "2025-01-01T00:00:00Z"
SELDOM = "0 0 1 1 *"
"""What has been known for long has missed it; what has run since has not, and does not come again in a test."""


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    path.mkdir()
    (path / "file").write_bytes(os.urandom(200_000))
    return path


@pytest.fixture
def hold(tmp_path: Path) -> Path:
    """While this file exists, every tar that reads a volume stands still, having said nothing yet."""
    directory = tmp_path / "bin"
    directory.mkdir()
    path = tmp_path / "hold"
    tar = directory / "tar"
    tar.write_text(
        f'#!/bin/sh\ncase "$*" in */dev/null*|*--version*) ;; *)'
        f" while [ -e {path} ] && kill -0 $PPID; do sleep 0.1; done ;; esac\n"
        f'PATH=${{PATH#*:}} exec tar "$@"\n'
    )
    tar.chmod(0o755)
    path.touch()
    return path


@pytest.fixture
def make(make_cli: Callable[..., Cli], tmp_path: Path, volume: Path) -> Callable[..., Cli]:
    """A command line with these plans; each backs up the volume `data` unless it says otherwise."""

    def make(plans: dict[str, dict[str, Any]], **settings: Any) -> Cli:
        filled = {name: {"volumes": ["data"], "stores": ["local"], **plan} for name, plan in plans.items()}
        cli = make_cli(
            engine="mounted",
            threads=1,
            **{
                "volumes": {"data": {"path": str(volume)}},
                "log": {"format": "json"},
                "plans": filled,
                "web": {"enabled": False},
                **settings,
            },
        )
        environment = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
        return Cli(cli.config, environment)

    return make


def change(cli: Cli, **settings: Any) -> None:
    cli.config.write_text(yaml.safe_dump(yaml.safe_load(cli.config.read_text()) | settings))


def runs(cli: Cli, **wanted: str) -> list[dict[str, Any]]:
    found = cli.json("history")["runs"]
    return [run for run in found if all(run[key] == value for key, value in wanted.items())]


def snapshots(cli: Cli) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = cli.json("list")["snapshots"]
    return found


def under_way(state: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((state / "daemon.json").read_text())["activities"]
    return found


def test_a_schedule_fires_in_real_time(make: Callable[..., Cli], tmp_path: Path) -> None:
    zone = soon(tmp_path / "zones", 10)
    each_minute = {"schedule": "* * * * *", "timezone": NAME}
    cli = make({"often": {**each_minute, "verify": {"schedule": "* * * * *", "read_data": 100}}})
    cli = replace(cli, environment=cli.environment | zone.environment)
    with daemon(cli) as running:
        fired = running.wait_for("backup of often begins (schedule)")
        assert (datetime.fromisoformat(fired["time"]) + zone.ahead).second < 30
        done = running.wait_for("backup of often is done")
        assert done["run"] == fired["run"]
        running.wait_for("verify of often is done")
        assert cli.json("healthcheck") == {"healthy": True, "problem": None}
        scheduled = cli.json("schedule")
        assert scheduled["daemon"] == "running"
        assert [entry["kind"] for entry in scheduled["schedule"]] == ["backup", "verify"]
        assert all(entry["missed"] is None for entry in scheduled["schedule"])
        assert running.stop() == 0
    run = runs(cli, kind="backup", trigger="schedule")[-1]  # there is another one if a minute has ended meanwhile
    assert (run["id"], run["outcome"]) == (fired["run"], "done")
    assert run["snapshot"] in {snapshot["id"] for snapshot in snapshots(cli)}
    assert run["volumes"]["data"]["plain_bytes"] > 200_000
    assert cli.run("healthcheck", code=1).stderr == "error: no daemon runs with this state directory\n"


@pytest.mark.parametrize("odd", [False, True])
def test_jobs_that_cannot_be_confined_are_told_of(make: Callable[..., Cli], tmp_path: Path, *, odd: bool) -> None:
    """Here since a part of `tar` is where a confined job cannot read it."""
    if not odd and (said := unconfined()):
        pytest.skip(said)
    if odd:
        for name in ("bin", "cellar"):
            (tmp_path / name).mkdir()
        (tmp_path / "bin" / "sh").symlink_to(shutil.which("sh") or "")
        (tmp_path / "cellar" / "tar").write_text(f'#!/bin/sh\nexec {shutil.which("tar")} "$@"\n')
        (tmp_path / "cellar" / "tar").chmod(0o755)
        (tmp_path / "bin" / "tar").symlink_to(tmp_path / "cellar" / "tar")
    cli = make({"seldom": {"schedule": SELDOM}})
    if odd:
        cli.environment["PATH"] = str(tmp_path / "bin")
    with daemon(cli) as running:
        running.wait_for(", next at ")
        warned = [line["message"] for line in running.lines if "not confined" in line["message"]]
        assert running.stop() == 0
    assert len(warned) == odd
    assert all(said.startswith("jobs are not confined: ") for said in warned)


@pytest.fixture
def clock(tmp_path: Path) -> FakeClock:
    try:
        return FakeClock(library(tmp_path), tmp_path / "clock")
    except NotInstallable as exc:
        pytest.skip(str(exc))


def test_a_clock_that_is_set_fires_once_and_starts_no_storm(
    make: Callable[..., Cli], tmp_path: Path, clock: FakeClock
) -> None:
    """Over twelve times of a schedule, far back before them, and over one of them again."""
    cli = make({"n": {"schedule": "0 */6 * * *"}})
    cli = replace(cli, environment=cli.environment | clock.environment)
    begin = datetime(2027, 3, 10, 0, 30, tzinfo=UTC)

    def due() -> datetime:
        (run,) = json.loads((tmp_path / "state" / "daemon.json").read_text())["next_runs"] or [{"at": "1970-01-01"}]
        return datetime.fromisoformat(run["at"])

    clock.set(begin)
    with daemon(cli) as running:
        running.wait_for("next at 2027-03-10 06:00:00")
        clock.set(begin + timedelta(days=3))
        running.wait_for("backup of n is done")
        assert running.says("the clock moved by +")
        running.until(lambda: due() == datetime(2027, 3, 13, 6, tzinfo=UTC), "the next time")
        clock.set(begin - timedelta(days=30))
        running.wait_for("the clock moved by -")
        running.until(lambda: due() == datetime(2027, 2, 8, 6, tzinfo=UTC), "the next time, found anew")
        assert len(runs(cli)) == 1, "none of what has come again is due again"
        clock.set(datetime(2027, 2, 8, 6, 1, tzinfo=UTC))
        running.wait_for("backup of n is done", 2)
        assert cli.json("healthcheck")["healthy"]
        assert running.stop() == 0
    assert [run["outcome"] for run in runs(cli)] == ["done", "done"]
    assert len(snapshots(cli)) == 2


def test_a_daemon_that_stood_still_catches_up_once(make: Callable[..., Cli], tmp_path: Path, clock: FakeClock) -> None:
    """While all clocks went on; and in the freezer while the monotonic one stood, as on a machine that is suspended."""
    cli = make({"n": {"schedule": "0 * * * *"}})
    cli = replace(cli, environment=cli.environment | clock.environment)
    begin = datetime(2027, 3, 10, 5, 59, 38, tzinfo=UTC)

    def due() -> str:
        (run,) = json.loads((tmp_path / "state" / "daemon.json").read_text())["next_runs"] or [{"at": ""}]
        return str(run["at"])

    clock.set(begin)
    started = time.monotonic()
    with daemon(cli) as running:
        running.wait_for("next at 2027-03-10 06:00:00")
        with stopped(running.process):
            time.sleep(max(0.0, started + 25 - time.monotonic()))
        running.wait_for("backup of n is done")
        running.until(lambda: due() == "2027-03-10T07:00:00Z", "the next time")
        assert len(runs(cli)) == 1
        with (frozen if os.geteuid() == 0 else stopped)(running.process):
            clock.set(begin + timedelta(days=2, hours=3))
            time.sleep(1.5)
        running.wait_for("backup of n is done", 2)
        running.until(lambda: due() == "2027-03-12T09:00:00Z", "the next time")
        assert running.stop() == 0
    assert [run["outcome"] for run in runs(cli)] == ["done", "done"]
    assert len(snapshots(cli)) == 2


def test_what_was_missed_is_caught_up_once(make: Callable[..., Cli], tmp_path: Path) -> None:
    cli = make({
        "n": {"schedule": SELDOM, "drill": {"schedule": SELDOM}},
        "without": {"schedule": SELDOM, "catch_up": False},
    }, prune={"schedule": SELDOM})  # fmt: skip
    known_since(tmp_path / "state", LONG_AGO, "backup of n", "drill of n", "backup of without", "prune")
    missed = {entry["plan"]: entry["missed"] for entry in cli.json("schedule")["schedule"] if entry["kind"] == "backup"}
    assert missed == {"n": "2026-01-01T00:00:00Z", "without": "2026-01-01T00:00:00Z"}
    with daemon(cli) as running:
        for what in ("backup of n is done", "drill of n", "prune is done"):
            running.wait_for(what)
        assert running.says("backup of without was missed at 2026-01-01")
        assert running.stop() == 0
    (run,) = [run for run in runs(cli, kind="backup") if run["plan"] == "n"]
    assert run["trigger"] == "catch-up"
    with daemon(cli) as running:
        running.wait_for("backup of without was missed at 2026-01-01")
        assert running.stop() == 0
    (run,) = [run for run in runs(cli, kind="backup") if run["plan"] == "without"]  # recorded, and only once
    assert run["outcome"] == "skipped"
    assert run["notes"][0].startswith("missed at 2026-01-01")
    (tmp_path / "state" / "history.sqlite").unlink()  # the snapshots know
    with daemon(cli) as running:
        running.wait_for("next at")
        running.until(lambda: bool(json.loads((tmp_path / "state" / "daemon.json").read_text())["ready"]))
        assert not running.says("backup of n was missed")
        assert running.stop() == 0
    assert len(snapshots(cli)) == 1


def test_the_second_run_on_a_volume_waits_or_is_skipped(
    make: Callable[..., Cli], tmp_path: Path, hold: Path, volume: Path
) -> None:
    cli = make(
        {"a": {"schedule": SELDOM}, "b": {"schedule": SELDOM}, "c": {"schedule": SELDOM, "overlap": "skip"}},
        daemon={"parallel": 4},
    )
    known_since(tmp_path / "state", LONG_AGO, "backup of a", "backup of b", "backup of c")
    with daemon(cli) as running:
        running.wait_for("backup of a begins")
        waits = running.wait_for("backup of b waits: ")
        skipped = running.wait_for("backup of c is skipped: ")
        assert f"the backup of a, which is under way, has the volume {volume}" in waits["message"]
        assert f"has the volume {volume}" in skipped["message"]
        running.until(lambda: len(under_way(tmp_path / "state")) == 2, "both in daemon.json, written every 10 s")
        first, second = cli.json("schedule")["queue"]
        assert (first["plan"], first["state"], first["waits_for"]) == ("a", "running", None)
        assert (second["plan"], second["state"], second["run"]) == ("b", "waiting", None)
        assert second["waits_for"] == f"the backup of a, which is under way, has the volume {volume}"
        said = cli.run("schedule").stdout
        assert "backup of a (catch-up) is under way since " in said
        assert f", run {first['run'][:8]}\n" in said
        assert f": {second['waits_for']}\n" in said
        hold.unlink()
        running.wait_for("backup of b is done")
        running.stop()
    outcomes = {run["plan"]: (run["outcome"], run["notes"]) for run in runs(cli)}
    assert (outcomes["a"][0], outcomes["b"][0], outcomes["c"][0]) == ("done", "done", "skipped")
    assert "has the volume" in outcomes["c"][1][0]
    assert len(snapshots(cli)) == 2


def test_so_it_does_where_another_process_has_the_volume(
    make: Callable[..., Cli], tmp_path: Path, hold: Path, volume: Path
) -> None:
    (tmp_path / "again").symlink_to(volume)
    cli = make(
        {
            "n": {"schedule": SELDOM},
            "same": {"schedule": SELDOM, "volumes": ["again"]},  # which only the lock knows: no order has its real path
            "by-hand": {},
        },
        volumes={"data": {"path": str(volume)}, "again": {"path": str(tmp_path / "again")}},
        daemon={"parallel": 4},
    )
    by_hand = subprocess.Popen(cli.command("backup", "by-hand"), env=cli.env(), stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: any(path.stat().st_size for path in (tmp_path / "state").glob("locks/*.lock")), "a lock")
        known_since(tmp_path / "state", LONG_AGO, "backup of n", "backup of same")
        with daemon(cli) as running:
            running.wait_for("volume again is being worked on by another backupd")
            waits = running.wait_for("volume data is being worked on by another backupd")
            assert f"(process {by_hand.pid}): waiting" in waits["message"]
            assert waits["run"] == running.wait_for("backup of n begins (catch-up)")["run"]
            hold.unlink()
            assert by_hand.wait(PATIENCE_SECONDS) == 0
            running.wait_for("backup of n is done")
            running.wait_for("backup of same is done")
            running.stop()
    finally:
        by_hand.kill()
        by_hand.wait()
    outcomes = {run["plan"]: run["outcome"] for run in runs(cli, kind="backup")}
    assert outcomes == {"n": "done", "by-hand": "done", "same": "done"}


def test_skipping_what_another_process_has(make: Callable[..., Cli], tmp_path: Path, volume: Path) -> None:
    cli = make({"s": {"schedule": SELDOM, "overlap": "skip"}})
    known_since(tmp_path / "state", LONG_AGO, "backup of s")
    held = Volume(name="data", kind="directory", source=str(volume))
    with volume_lock(tmp_path / "state" / "locks", held), daemon(cli) as running:
        line = running.wait_for("backup of s skipped: volume data is being worked on by another backupd")
        assert f"(process {os.getpid()})" in line["message"]
        running.stop()
    (run,) = runs(cli, kind="backup")
    assert (run["outcome"], run["trigger"]) == ("skipped", "catch-up")
    assert not (tmp_path / "backups" / "snapshots").exists()


@pytest.fixture
def reading(make: Callable[..., Cli], tmp_path: Path, hold: Path) -> Callable[..., tuple[Cli, Any]]:
    """A command line, and a daemon that is in the middle of a backup once it has been entered."""

    def start(stop_within: str) -> tuple[Cli, Any]:
        cli = make({"n": {"schedule": SELDOM}}, daemon={"stop_within": stop_within})
        known_since(tmp_path / "state", LONG_AGO, "backup of n")
        return cli, daemon(cli)

    return start


def in_the_middle(running: Running, tmp_path: Path) -> None:
    """Until the lease is in the store and tar is at it."""
    running.wait_for("backup of n begins")
    running.until(lambda: any((tmp_path / "backups").glob("leases/*.json")), "a lease")
    running.until(lambda: any((tmp_path / "state" / "locks").glob("*.lock")), "a lock")


def nothing_is_left(cli: Cli, tmp_path: Path) -> None:
    assert not list((tmp_path / "backups").glob("leases/*.json"))
    assert not list((tmp_path / "backups").glob("snapshots/*"))
    assert not list((tmp_path / "backups").glob("archives/*/*"))
    assert cli.json("recover") == {"recovered": []}


def test_sigterm_lets_a_run_finish(reading: Callable[..., tuple[Cli, Any]], tmp_path: Path, hold: Path) -> None:
    cli, starting = reading("10m")
    with starting as running:
        in_the_middle(running, tmp_path)
        (scheduled,) = cli.json("schedule")["schedule"]
        assert scheduled["missed"] is None, "it is under way"
        running.signal(signal.SIGTERM)
        running.wait_for("told to stop")
        hold.unlink()
        assert running.ended() == 0
        assert running.says("backup of n is done")
    (snapshot,) = snapshots(cli)
    assert runs(cli, kind="backup")[0]["snapshot"] == snapshot["id"]


def test_sigterm_aborts_what_takes_too_long(reading: Callable[..., tuple[Cli, Any]], tmp_path: Path) -> None:
    cli, starting = reading("40s")
    with starting as running:
        in_the_middle(running, tmp_path)
        assert running.stop() == 0
        assert running.says("backup of n was aborted")
        assert not running.says("is killed")
    nothing_is_left(cli, tmp_path)
    (run,) = runs(cli, kind="backup")
    assert (run["outcome"], run["exit_code"]) == ("interrupted", 130)


def test_a_second_sigterm_aborts_at_once(reading: Callable[..., tuple[Cli, Any]], tmp_path: Path) -> None:
    cli, starting = reading("1d")
    with starting as running:
        in_the_middle(running, tmp_path)
        running.signal(signal.SIGINT)
        running.wait_for("told to stop")
        running.signal(signal.SIGTERM)
        assert running.ended() == 0
    nothing_is_left(cli, tmp_path)


def test_a_killed_daemon_is_recovered_from_and_its_run_caught_up(
    reading: Callable[..., tuple[Cli, Any]], tmp_path: Path, hold: Path
) -> None:
    cli, starting = reading("1d")
    with starting as running:
        in_the_middle(running, tmp_path)
        wait_until(lambda: bool(under_way(tmp_path / "state")), "the run in daemon.json, written every 10 s")
        (activity,) = under_way(tmp_path / "state")
        for child in children(running.process.pid):
            os.kill(child, signal.SIGKILL)  # as when the container is killed
        running.process.kill()
        running.ended()
    hold.unlink()
    (run,) = runs(cli, kind="backup")
    assert (run["outcome"], run["finished"]) == ("interrupted", None)
    with daemon(cli) as running:
        running.wait_for("was killed")
        recovered = running.wait_for("ended the lease of a process that is no more")
        running.wait_for("backup of n is done")
        assert running.stop() == 0
    assert [run["outcome"] for run in runs(cli, kind="backup")] == ["done", "interrupted"]
    (recovery,) = runs(cli, kind="recover", trigger="start")
    assert recovery["notes"]
    assert recovery["id"] == recovered["run"], "the log's lines are found by it"
    assert activity["kind"] == "backup"
    assert len(snapshots(cli)) == 1


def test_a_run_whose_daemon_dies_aborts_by_itself(reading: Callable[..., tuple[Cli, Any]], tmp_path: Path) -> None:
    cli, starting = reading("1d")
    with starting as running:
        in_the_middle(running, tmp_path)
        orphans = children(running.process.pid)
        running.process.kill()
        running.process.wait()
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in orphans), "the end of the run")
    nothing_is_left(cli, tmp_path)


def test_a_run_that_is_killed_ends_no_daemon(reading: Callable[..., tuple[Cli, Any]], tmp_path: Path) -> None:
    cli, starting = reading("1d")
    with starting as running:
        in_the_middle(running, tmp_path)
        for child in children(running.process.pid):
            os.kill(child, signal.SIGKILL)
        line = running.wait_for("backup of n failed: the run's process died: SIGKILL (was there enough memory?)")
        assert line["level"] == "error"
        assert running.stop() == 0
    assert runs(cli, kind="backup")[0]["outcome"] == "failed"


def children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for path in found for child in path.read_text().split()]


def test_sighup(make: Callable[..., Cli], tmp_path: Path) -> None:
    cli = make({"n": {"schedule": "0 2 * * *"}})
    good = cli.config.read_text()
    with daemon(cli) as running:
        running.wait_for("backup of n: 0 2 * * *")
        cli.config.write_text(good.replace("0 2 * * *", "0 27 * * *"))
        running.signal(signal.SIGHUP)
        running.wait_for("plans.n.schedule: the hour field of the schedule takes 0 to 23")
        running.wait_for("the new configuration is refused, the old one goes on")
        status = json.loads((tmp_path / "state" / "daemon.json").read_text())
        assert [run["schedule"] for run in status["next_runs"]] == ["0 2 * * *"]
        assert "hour field" in status["config_error"]
        assert cli.run("healthcheck").stdout == "the daemon is well\n"
        cli.config.write_text(good.replace("0 2 * * *", "0 7 * * *"))
        change(cli, state_dir=str(tmp_path / "other"))
        running.signal(signal.SIGHUP)
        running.wait_for("state_dir has changed")
        cli.config.write_text(good.replace("0 2 * * *", "0 7 * * *"))
        running.signal(signal.SIGHUP)
        running.wait_for("the new configuration is in use")
        status = json.loads((tmp_path / "state" / "daemon.json").read_text())
        assert [run["schedule"] for run in status["next_runs"]] == ["0 7 * * *"]
        assert status["config_error"] is None
        assert running.stop() == 0


def test_what_runs_keeps_its_configuration(reading: Callable[..., tuple[Cli, Any]], tmp_path: Path, hold: Path) -> None:
    cli, starting = reading("10m")
    with starting as running:
        in_the_middle(running, tmp_path)
        change(cli, stores={"local": {"type": "local", "path": str(tmp_path / "elsewhere")}})
        running.signal(signal.SIGHUP)
        running.wait_for("the new configuration is in use")
        hold.unlink()
        running.wait_for("backup of n is done")
        assert running.stop() == 0
    assert list((tmp_path / "backups").glob("snapshots/*"))
    assert not (tmp_path / "elsewhere").exists()


def test_a_failing_run_is_told_and_the_daemon_goes_on(make: Callable[..., Cli], tmp_path: Path) -> None:
    cli = make(
        {"bad": {"schedule": SELDOM, "volumes": ["gone"]}, "n": {"schedule": SELDOM}},
        volumes={"gone": {"path": str(tmp_path / "gone")}, "data": {"path": str(tmp_path / "data")}},
    )
    known_since(tmp_path / "state", LONG_AGO, "backup of bad", "backup of n")
    with daemon(cli) as running:
        line = running.wait_for("backup of bad failed: ")
        assert line["level"] == "error"
        assert line["run"]
        running.wait_for("backup of n is done")
        assert running.stop() == 0
    assert runs(cli, plan="bad")[0]["outcome"] == "failed"
    assert "gone" in cli.run("history", "--plan", "bad").stdout


def test_two_daemons(make: Callable[..., Cli]) -> None:
    cli = make({"n": {"schedule": SELDOM}})
    with daemon(cli) as running:
        running.wait_for("backupd ")
        said = cli.error("run", code=11)
        assert f"process {running.process.pid} on " in said
        assert running.stop() == 0


def test_every_command_that_is_a_run_is_in_the_history(make: Callable[..., Cli], tmp_path: Path, volume: Path) -> None:
    cli = make({"n": {"keep": {"last": 1}}})
    cli.run("backup")
    (volume / "more").write_text("more")
    cli.run("backup")
    cli.run("verify", "--read-data")
    cli.run("drill")
    cli.run("restore", "latest", "--yes")
    cli.run("prune", "--dry-run")
    cli.run("prune")
    cli.run("recover")
    seen = [(run["kind"], run["plan"], run["trigger"], run["outcome"]) for run in runs(cli)]
    assert seen == [
        ("recover", None, "manual", "done"),
        ("prune", None, "manual", "done"),
        ("restore", "n", "manual", "done"),
        ("drill", "n", "manual", "done"),
        ("verify", None, "manual", "done"),
        ("backup", "n", "manual", "done"),
        ("backup", "n", "manual", "done"),
    ]
    (newest, _) = runs(cli, kind="backup")
    assert newest["volumes"]["data"]["full"] is False
    assert (newest["files"], newest["warnings"]) == (3, 0)
    assert f"snapshot  {newest['snapshot']}" in cli.run("history", newest["id"][:8]).stdout
    assert len(cli.json("history", "--kind", "backup", "--limit", "1")["runs"]) == 1
    assert "there is no kind" in cli.error("history", "--kind", "backups", code=2)
    assert "no run begins" in cli.error("history", "zz", code=2)
    (volume / "file").unlink()
    volume.rename(tmp_path / "away")
    cli.run("backup", code=1)
    failed = runs(cli)[0]
    assert (failed["outcome"], failed["exit_code"]) == ("failed", 1)


def test_a_quick_health_check_imports_little() -> None:
    code = "import sys; from backupd.cli import main; import backupd.health; print(sorted(sys.modules))"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for heavy in ("pydantic", "typer", "docker", "boto3", "apscheduler", "rich", "loguru"):
        assert f"'{heavy}'" not in modules
