"""Orders whose thread does not even begin."""

from __future__ import annotations

from pathlib import Path

import pytest

from backupd.daemon import dispatcher
from backupd.daemon.dispatcher import Dispatcher
from backupd.daemon.orders import make_order
from backupd.daemon.queue import Queue
from backupd.daemon.worker import Workers
from backupd.history import History
from backupd.runs import Recorder
from backupd.settings import load_settings
from tests.support.runtime import BEGIN, CountingIds, TickingClock


class NoMoreThreads:
    def __init__(self, **_: object) -> None:
        pass

    def start(self) -> None:
        raise RuntimeError("can't start new thread")


def test_a_run_that_cannot_be_begun_has_failed_and_is_in_nobodys_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "backupd.yaml").write_text(
        "engine: mounted\nstores: {here: {type: local, path: ./here}}\nvolumes: {a: {path: ./a}}\n"
        "plans: {one: {volumes: [a], stores: [here]}}\n"
    )
    settings = load_settings(tmp_path / "backupd.yaml", {})
    clock, history = TickingClock(), History(tmp_path)
    recorder = Recorder(history, clock, CountingIds(), print)
    made = Dispatcher(Queue(1), Workers(), recorder, clock, lambda: None)
    monkeypatch.setattr(dispatcher, "Thread", NoMoreThreads)
    for _ in range(2):
        made.submit(make_order("backup", "one", "schedule", "skip", BEGIN, settings))
        assert made.idle
    assert [(run.outcome, run.error) for run in history.runs()] == [
        ("failed", "could not be begun: can't start new thread")
    ] * 2
