"""The history of runs, and how it comes about."""

from __future__ import annotations

import multiprocessing
import os
import signal
import stat
from datetime import timedelta
from pathlib import Path

import pytest

from backupd.errors import BackupdError, Interrupted, PartialFailure, RunSkipped, SourceError, StoreUnavailable
from backupd.history import History, Run, VolumeFigures
from backupd.journal import CloneAct, Journal
from backupd.model import Volume
from backupd.runs import Recorder
from backupd.status import DaemonStatus, StatusFile
from tests.support.runtime import BEGIN, CountingIds, TickingClock

FIGURES = VolumeFigures(plain_bytes=100, new_bytes=10, stored_bytes=5, files=3, warnings=1, seconds=2.5, full=False)


def a_run(number: int, **fields: object) -> Run:
    return Run(id=f"{number:016x}", kind="backup", started=BEGIN + timedelta(hours=number), **fields)  # type: ignore[arg-type]


class Watching:
    def __init__(self, error: BackupdError | None = None) -> None:
        self.seen: list[tuple[str, str]] = []
        self.error = error

    def began(self, run: Run) -> None:
        self.seen.append(("began", run.outcome))

    def ended(self, run: Run) -> None:
        self.seen.append(("ended", run.outcome))
        if self.error:
            raise self.error


def recorder(state: Path, *watchers: Watching) -> tuple[Recorder, list[str]]:
    warnings: list[str] = []
    return Recorder(History(state), TickingClock(), CountingIds(), warnings.append, watchers), warnings


def test_newest_first_and_filtered(tmp_path: Path) -> None:
    history = History(tmp_path)
    for number, plan, outcome in ((1, "a", "done"), (3, "a", "failed"), (2, "b", "done")):
        history.put(a_run(number, plan=plan, outcome=outcome, volumes={"data": FIGURES}))
    assert [run.id[-1] for run in history.runs()] == ["3", "2", "1"]
    assert [run.id[-1] for run in history.runs(plan="a")] == ["3", "1"]
    assert [run.id[-1] for run in history.runs(limit=1)] == ["3"]
    assert history.runs(kind="drill") == []
    last = history.last("backup", "a", ["done"])
    assert last is not None
    assert (last.id[-1], last.files, last.plain_bytes, last.new_bytes, last.stored_bytes) == ("1", 3, 100, 10, 5)
    assert [run.id for run in history.find("000000000000000")] == [f"{number:016x}" for number in (1, 3, 2)]


def test_a_part_of_a_plan_is_no_run_of_it(tmp_path: Path) -> None:
    history = History(tmp_path)
    history.put(a_run(1, plan="a", outcome="done"))
    history.put(a_run(2, plan="a", outcome="done", part=True))
    last = history.last("backup", "a", ["done"])
    assert last is not None
    assert (last.id[-1], last.part) == ("1", False)
    assert [run.id[-1] for run in history.runs(plan="a")] == ["2", "1"]
    assert history.forget(BEGIN + timedelta(hours=9)) == 0, "each is the newest good one of its own"
    history.put(a_run(3, plan="a", outcome="done", part=True))
    assert history.forget(BEGIN + timedelta(hours=9)) == 1
    assert history.last("backup", "a") == last


def test_nothing_yet(tmp_path: Path) -> None:
    history = History(tmp_path / "state")
    assert history.runs() == []
    assert history.find("0") == []
    assert not (tmp_path / "state").exists()


def test_a_block_that_ends_well_is_done(tmp_path: Path) -> None:
    watching = Watching()
    record, warnings = recorder(tmp_path, watching)
    with record.run("backup", "nightly", "schedule") as draft:
        (seen,) = record.history.runs()
        assert (seen.outcome, seen.finished, seen.trigger) == ("running", None, "schedule")
        draft.set(snapshot="ab", volumes={"data": FIGURES})
        draft.note("something")
    (run,) = record.history.runs()
    assert (run.outcome, run.snapshot, run.notes, run.seconds, run.good) == ("done", "ab", ["something"], 1.0, True)
    assert watching.seen == [("began", "running"), ("ended", "done")]
    assert warnings == []


@pytest.mark.parametrize(
    ("error", "outcome", "code"),
    [
        (PartialFailure("one is missing"), "partial", 3),
        (StoreUnavailable("away"), "failed", 1),
        (Interrupted("x"), "interrupted", 130),
        (KeyboardInterrupt(), "interrupted", 130),
        (ZeroDivisionError("a defect"), "failed", 1),
    ],
)
def test_what_is_raised_decides(tmp_path: Path, error: BaseException, outcome: str, code: int) -> None:
    watching = Watching()
    record, _ = recorder(tmp_path, watching)
    with pytest.raises(type(error)), record.run("backup"):
        raise error
    (run,) = record.history.runs()
    assert (run.outcome, run.exit_code) == (outcome, code)
    assert run.error
    assert watching.seen[-1] == ("ended", outcome)


def test_what_turns_out_not_to_take_place_is_noted_and_no_error(tmp_path: Path) -> None:
    record, _ = recorder(tmp_path)
    with pytest.raises(RunSkipped), record.run("verify"):
        raise RunSkipped("skipped: nothing to verify yet")
    (run,) = record.history.runs()
    assert (run.outcome, run.exit_code, run.error, run.notes) == (
        "skipped",
        0,
        None,
        ["skipped: nothing to verify yet"],
    )


def test_a_watcher_that_fails_is_said_and_ends_nothing(tmp_path: Path) -> None:
    record, warnings = recorder(tmp_path, Watching(BackupdError("nobody listens")), watching := Watching())
    with record.run("backup"):
        pass
    assert warnings == ["nobody listens"]
    assert watching.seen[-1] == ("ended", "done")


@pytest.mark.parametrize(
    ("error", "outcome"), [(None, "done"), (StoreUnavailable("gone"), "failed"), (Interrupted("stop"), "interrupted")]
)
def test_a_run_that_is_over_is_recorded_as_it_is(tmp_path: Path, error: BackupdError | None, outcome: str) -> None:
    record, _ = recorder(tmp_path, watching := Watching())
    record.over(a_run(7, notes=["a lease is gone"]), error)
    (run,) = record.history.runs()
    assert (run.id, run.outcome, run.notes) == (f"{7:016x}", outcome, ["a lease is gone"])
    assert run.finished is not None
    assert watching.seen == [("ended", outcome)]


def test_who_watches_when_a_run_ends_is_told_of_it(tmp_path: Path) -> None:
    """The configuration was read anew meanwhile."""
    before, after = Watching(), Watching()
    record, _ = recorder(tmp_path, before)
    with record.run("backup"):
        record.watchers = [after]
    assert (before.seen, after.seen) == ([("began", "running")], [("ended", "done")])


def test_a_history_that_cannot_be_kept_is_said(tmp_path: Path) -> None:
    (tmp_path / "history.sqlite").write_text("this is no database, and long enough to be told from one" * 20)
    record, warnings = recorder(tmp_path)
    with record.run("backup"):
        pass
    assert len(warnings) == 2
    assert "history.sqlite cannot be used" in warnings[0]
    with pytest.raises(SourceError):
        record.history.runs()


def test_skipped(tmp_path: Path) -> None:
    record, _ = recorder(tmp_path, watching := Watching())
    record.skipped("backup", "nightly", "schedule", "the one before still runs")
    (run,) = record.history.runs()
    assert (run.outcome, run.seconds, run.notes) == ("skipped", 0, ["the one before still runs"])
    assert watching.seen == [("ended", "skipped")]


def _begin_and_die(state: Path) -> None:
    record, _ = recorder(state)
    with record.run("backup", "nightly"):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_run_whose_process_was_killed_is_interrupted(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_begin_and_die, args=(tmp_path,))
    process.start()
    process.join()
    history = History(tmp_path)
    (run,) = history.runs()
    assert (run.outcome, run.finished) == ("interrupted", None)
    assert history.runs(outcomes=["running"]) == []
    assert [settled.id for settled in history.settle(BEGIN)] == [run.id]
    assert history.runs()[0].finished == BEGIN
    assert history.settle(BEGIN) == []


def test_forgetting_keeps_the_newest_good_one(tmp_path: Path) -> None:
    history = History(tmp_path)
    for number, outcome in ((1, "done"), (2, "done"), (3, "failed"), (90, "done")):
        history.put(a_run(number, plan="a", outcome=outcome))
    history.put(a_run(4, plan="b", outcome="done"))
    assert history.forget(BEGIN + timedelta(hours=50)) == 3
    assert [(run.plan, run.id) for run in history.runs()] == [("a", f"{90:016x}"), ("b", f"{4:016x}")]


def test_it_is_nobody_elses_although_the_directory_is_open(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    record, _ = recorder(tmp_path)
    with record.run("backup"):
        pass
    volume = Volume(name="data", kind="volume", source="data")
    Journal(tmp_path).begin(CloneAct(volume=volume, name="x"), BEGIN)
    StatusFile(tmp_path).write(DaemonStatus(process="", program="", started=BEGIN, beat=BEGIN, configured=BEGIN))
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == dict.fromkeys(("history.sqlite", "journal.sqlite", "daemon.json"), 0o600)
