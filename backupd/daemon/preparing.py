"""Before the first run: recover, and find out what there is."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from threading import Thread

from loguru import logger

from backupd.daemon.messages import Reply, Task, failure
from backupd.daemon.surroundings import Surroundings
from backupd.daemon.worker import Workers
from backupd.errors import BackupdError
from backupd.history import Run
from backupd.log import bound_run
from backupd.runs import Recorder
from backupd.settings import Settings


class Preparation:
    """Takes place in a process of its own, as runs do. `over` when it has ended, well or not; then `last` is known."""

    def __init__(self, around: Surroundings, workers: Workers, wake: Callable[[], None]) -> None:
        self._around = around
        self._workers = workers
        self._wake = wake
        self.over = False
        self.last: dict[str, datetime | None] = {}
        """When each plan's newest snapshot was taken: those of which that could be found out."""

    def begin(self, settings: Settings, recorder: Recorder) -> None:
        """Begin in the background."""
        Thread(target=self._prepare, args=(settings, recorder), name="preparation", daemon=True).start()

    def _prepare(self, settings: Settings, recorder: Recorder) -> None:
        try:
            for run in recorder.settle():
                logger.warning("the {} that began at {:%Y-%m-%d %H:%M:%S} UTC was killed", run.kind, run.started)
            run = Run(id=self._around.new_id(), kind="recover", trigger="start", started=self._around.clock.now())
            with bound_run(run.id):
                handed = self._around.handed
                self._recover(Task("prepare", run, settings, "wait", handed.identity, handed.level), recorder)
        except Exception:
            logger.opt(exception=True).error("preparing: this should not have happened")
        finally:
            self.over = True
            self._wake()

    def _recover(self, task: Task, recorder: Recorder) -> None:
        try:
            reply = self._workers.carry_out(task)
        except BackupdError as exc:
            reply = Reply(run=task.run, error=str(exc), hint=exc.hint, exit_code=exc.exit_code)
        self.last = reply.last
        for note in reply.run.notes:
            logger.warning("{}", note)
        error = failure(reply)
        if error is not None:
            logger.error("not everything could be recovered: {}", error)
        if error is not None or reply.run.notes:  # else nothing was half-done: that is no run
            recorder.over(reply.run, error)
