"""Stopping in time, clocks that are set, what was missed, one daemon a state directory, whether it is well."""

from __future__ import annotations

import os
import signal
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Timer

import msgspec
import pytest

from backupd.agenda import Entry, agenda
from backupd.daemon.clockwatch import ClockWatch
from backupd.daemon.known import KnownSince
from backupd.daemon.lock import daemon_lock
from backupd.daemon.missed import missed_runs
from backupd.daemon.signals import Signals
from backupd.daemon.stopping import Stopping
from backupd.errors import LockedError
from backupd.health import complaint, quick, state_directory
from backupd.history import History, Run
from backupd.process import this_process
from backupd.settings import load_settings
from backupd.settings.cron import parse_schedule
from backupd.status import DaemonStatus, StatusFile, unwell

NOW = datetime(2026, 11, 10, 12, tzinfo=UTC)


def test_runs_may_finish_then_are_aborted_then_killed() -> None:
    stopping = Stopping.begin(100.0, 60.0)
    assert stopping.act(129.9) is None
    assert stopping.pause(100.0) == 30.0
    assert [stopping.act(130.0), stopping.act(131.0)] == ["abort", None]
    assert stopping.pause(131.0) == 29.0
    assert [stopping.act(160.0), stopping.act(161.0)] == ["kill", None]


def test_of_a_long_time_half_a_minute_is_for_aborting() -> None:
    stopping = Stopping.begin(0.0, 600.0)
    assert (stopping.abort_at, stopping.kill_at) == (570.0, 600.0)


def test_what_was_killed_has_some_seconds_and_nobody_spins_meanwhile() -> None:
    stopping = Stopping.begin(0.0, 60.0)
    assert [stopping.act(30.0), stopping.act(60.0)] == ["abort", "kill"]
    assert stopping.pause(61.0) == 4.0
    assert not stopping.given_up(64.9)
    assert stopping.given_up(65.0)


def test_told_twice_it_aborts_at_once() -> None:
    stopping = Stopping.begin(0.0, 600.0)
    stopping.hurry(5.0)
    assert stopping.act(5.0) == "abort"
    stopping.hurry(6.0)
    assert stopping.act(34.9) is None
    assert stopping.act(35.0) == "kill"


@pytest.mark.parametrize(
    ("wall", "monotonic", "moved"), [(10, 10, 0), (3610, 10, 3600), (-3590, 10, -3600), (65, 10, 0), (28800, 0, 28800)]
)
def test_a_clock_that_is_set_is_noticed(wall: float, monotonic: float, moved: float) -> None:
    watch = ClockWatch(NOW, 0.0)
    assert watch.look(NOW + timedelta(seconds=wall), monotonic) == moved
    assert watch.look(watch.time + timedelta(seconds=10), watch.monotonic + 10) == 0, "it has noticed"


def test_a_new_day_is_told_once() -> None:
    watch = ClockWatch(NOW, 0.0)
    days = [(watch.look(NOW + timedelta(hours=hours), hours * 3600.0), watch.new_day)[1] for hours in (1, 13, 14, 37)]
    assert days == [False, True, False, True]


def entry(kind: str = "backup", catch_up: bool = True) -> Entry:
    return Entry(kind, "n", "0 2 * * *", "UTC", parse_schedule("0 2 * * *"), catch_up=catch_up)  # type: ignore[arg-type]


DUE = datetime(2026, 11, 10, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("newest", "missed"),
    [
        (DUE + timedelta(seconds=1), False),
        (DUE, False),
        (DUE - timedelta(seconds=1), True),
        (DUE - timedelta(days=100), True),
        (NOW, False),
    ],
)
def test_what_was_missed_the_snapshots_say(tmp_path: Path, newest: datetime, missed: bool) -> None:
    history = History(tmp_path)  # which knows of a run that left nothing, or whose snapshot is gone
    history.put(Run(id="a" * 16, kind="backup", plan="n", started=NOW, finished=NOW, outcome="done"))
    found = missed_runs([entry()], {"n": newest}, history, {}, NOW)
    assert found == ([(entry(), DUE)] if missed else [])


def test_without_any_snapshot_what_came_since_it_was_first_seen(tmp_path: Path) -> None:
    for seen, missed in ((DUE - timedelta(hours=1), True), (DUE + timedelta(hours=1), False)):
        found = missed_runs([entry()], {"n": None}, History(tmp_path), {"backup of n": seen}, NOW)
        assert bool(found) == missed
    assert missed_runs([entry()], {"n": None}, History(tmp_path), {}, NOW) == []


def test_where_stores_can_not_be_asked_the_history_says(tmp_path: Path) -> None:
    history, seen = History(tmp_path), {"backup of n": DUE - timedelta(days=9)}
    assert missed_runs([entry()], {}, history, seen, NOW) == [(entry(), DUE)]
    failed = Run(id="a" * 16, kind="backup", plan="n", started=DUE, finished=DUE, outcome="failed")
    history.put(failed)
    assert missed_runs([entry()], {}, history, seen, NOW) == [(entry(), DUE)], "it has to be tried again"
    history.put(msgspec.structs.replace(failed, outcome="done"))
    assert missed_runs([entry()], {}, history, seen, NOW) == []


def test_what_a_drill_has_found_is_not_looked_for_again_at_once(tmp_path: Path) -> None:
    history, seen = History(tmp_path), {"drill of n": DUE - timedelta(days=9)}
    assert len(missed_runs([entry("drill")], {}, history, seen, NOW)) == 1
    history.put(Run(id="a" * 16, kind="drill", plan="n", started=DUE, finished=DUE, outcome="failed"))
    assert missed_runs([entry("drill")], {}, history, seen, NOW) == []


def test_since_when_schedules_are_known(tmp_path: Path) -> None:
    known = KnownSince(tmp_path)
    assert known.look(["a"], NOW) == {"a": NOW}
    assert known.meet(["a", "b"], NOW) == {"a": NOW, "b": NOW}
    assert known.meet(["b", "c"], DUE) == {"b": NOW, "c": DUE}
    assert known.look(["a", "b"], DUE) == {"a": DUE, "b": NOW}
    for damage in (b"{", b"[]", b"\xff", b'{"a": "tomorrow"}'):
        (tmp_path / "schedules.json").write_bytes(damage)
        assert known.look(["b"], DUE) == {"b": DUE}


def test_the_agenda(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text("""
engine: mounted
stores: {s: {type: local, path: ./s}}
volumes: {a: {path: ./a}}
plans:
  n: {volumes: [a], stores: [s], schedule: "0 2 * * *", timezone: Europe/Madrid, jitter: 5m, overlap: skip,
      catch_up: false, verify: {schedule: "@daily"}, drill: {schedule: "@weekly"}}
  m: {volumes: [a], stores: [s]}
prune: {schedule: "@hourly"}
""")
    found = agenda(load_settings(tmp_path / "b.yaml", {}))
    assert [one.key for one in found] == ["backup of n", "verify of n", "drill of n", "prune"]
    assert (found[0].jitter_seconds, found[0].overlap, found[0].catch_up) == (300, "skip", False)
    assert found[0].next(NOW) == datetime(2026, 11, 11, 1, tzinfo=UTC)
    assert found[3].next(NOW) == datetime(2026, 11, 10, 13, tzinfo=UTC)


def test_one_daemon_a_state_directory(tmp_path: Path) -> None:
    with (
        daemon_lock(tmp_path / "state", NOW),
        pytest.raises(LockedError, match=f"process {os.getpid()} on .*, since 2026-11-10 12:00:00 UTC"),
        daemon_lock(tmp_path / "state", NOW),
    ):
        pass
    with daemon_lock(tmp_path / "state", NOW):
        pass


def test_signals_end_a_wait_in_order(tmp_path: Path) -> None:
    with Signals(signal.SIGHUP, signal.SIGUSR1) as signals:
        assert signals.wait(0) == []
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGUSR1)
        got = list(signals.wait(60))
        while len(got) < 2:
            got += signals.wait(60)
        assert got == [signal.SIGHUP, signal.SIGUSR1]
        Timer(0.1, signals.wake).start()
        began = time.monotonic()
        assert signals.wait(60) == []
        assert time.monotonic() - began < 60
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL


def status(**fields: object) -> DaemonStatus:
    return DaemonStatus(
        **{"process": this_process(), "program": "backupd 1", "started": NOW, "beat": NOW, "configured": NOW} | fields  # type: ignore[arg-type]
    )


def test_whether_a_daemon_is_well(tmp_path: Path) -> None:
    file = StatusFile(tmp_path)
    assert unwell(file.read(), NOW) == "no daemon runs with this state directory"
    file.write(status())
    assert unwell(file.read(), NOW + timedelta(seconds=30)) is None
    assert "has not moved for 61 s" in str(unwell(file.read(), NOW + timedelta(seconds=61)))
    file.write(status(process="1:1:" + "0" * 8))
    assert unwell(file.read(), NOW) == "the daemon has died"
    file.path.write_bytes(b"{}\xff")
    assert file.read() is None
    file.remove()
    file.remove()


def test_the_quick_health_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "b.yaml").write_text("state_dir: ./state\n")
    environment = {"BACKUPD_CONFIG": str(tmp_path / "b.yaml")}
    assert quick(["healthcheck"], environment) == 1
    assert capsys.readouterr() == ("", "error: no daemon runs with this state directory\n")
    (tmp_path / "state").mkdir()
    StatusFile(tmp_path / "state").write(status(beat=datetime.now(UTC)))
    assert quick(["healthcheck"], environment) == 0
    assert capsys.readouterr().out == "the daemon is well\n"
    assert quick(["healthcheck", "--json"], environment) is None
    assert quick(["backup"], environment) is None
    assert complaint(tmp_path / "state") is None


@pytest.mark.parametrize(
    ("files", "environment"),
    [
        ({"b.yaml": "state_dir: ./here"}, {}),
        ({"b.yaml": "state_dir: /absolute/../there"}, {}),
        ({"b.yaml": "state_dir: here", "b.prod.yaml": "state_dir: in-prod"}, {"APP_ENV": "prod"}),
        ({"b.yaml": "state_dir: here", "b.prod.yaml": "state_dir: in-prod"}, {}),
        ({"b.yaml": "state_dir: here", "b.prod.yaml": "state_dir: null"}, {"APP_ENV": "prod"}),
        ({"b.yaml": "threads: 2"}, {}),
        ({"b.yaml": "state_dir: here"}, {"BACKUPD_STATE_DIR": "elsewhere"}),
        ({"b.yaml": "state_dir: here"}, {"BACKUPD_STATE_DIR": ""}),
    ],
)
def test_it_finds_the_state_directory_that_all_others_find(
    tmp_path: Path, files: dict[str, str], environment: dict[str, str]
) -> None:
    rest = "\nengine: mounted\nstores: {s: {type: local, path: /s}}\nvolumes: {v: {path: /v}}\n"
    for name, text in files.items():
        (tmp_path / name).write_text(text + (rest if name == "b.yaml" else ""))
    environment = {"BACKUPD_CONFIG": str(tmp_path / "b.yaml")} | environment
    found = state_directory(environment)
    assert found is not None
    assert str(found) == str(load_settings(None, environment).state_dir)


def test_where_it_can_not_tell_it_leaves_it_to_the_command(tmp_path: Path) -> None:
    assert state_directory({"BACKUPD_CONFIG": str(tmp_path / "none.yaml")}) is None
    (tmp_path / "b.yaml").write_text("state_dir: [")
    assert state_directory({"BACKUPD_CONFIG": str(tmp_path / "b.yaml")}) is None
    (tmp_path / "b.yaml").write_text("state_dir: [a]")
    assert state_directory({"BACKUPD_CONFIG": str(tmp_path / "b.yaml")}) is None
