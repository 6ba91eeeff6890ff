"""The process that carries out one run: `python -m backupd.daemon.child`. Started by the daemon only.

The task comes on standard input, which stays open as long as the daemon lives; the reply goes to standard output.
SIGTERM, or the end of the daemon, aborts the run as Ctrl-C aborts a command: what was begun is undone.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import closing, suppress
from threading import Thread
from types import FrameType

import msgspec
from loguru import logger

from backupd.daemon.messages import Reply, Task, receive
from backupd.daemon.progress import LogProgress
from backupd.errors import BackupdError, Interrupted, RunSkipped
from backupd.jobs.backup import judge_backup, run_backup
from backupd.jobs.catching_up import LastRuns, last_runs
from backupd.jobs.drill import judge_drill, newest_to_drill, run_drill
from backupd.jobs.prune import judge_prune, run_prune
from backupd.jobs.recover import run_recover
from backupd.jobs.site import Site
from backupd.jobs.verify import run_verify
from backupd.log import bound_process, configure
from backupd.process import let_threads_alternate
from backupd.runs import Draft
from backupd.wiring import secret_values


def main() -> None:
    """Do what the daemon says, reply, and end."""
    signal.signal(signal.SIGTERM, _terminated)
    let_threads_alternate()
    with suppress(BrokenPipeError), os.fdopen(os.dup(sys.stdout.fileno()), "wb") as answers:  # nobody is left to tell
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever prints must not spoil the reply
        task = receive(sys.stdin.buffer)
        Thread(target=_end_with_the_daemon, daemon=True).start()
        configure(task.settings.log, secret_values(task.settings), level=task.level)
        bound_process(task.run.id)
        answers.write(msgspec.json.encode(carry_out(task)))


def carry_out(task: Task) -> Reply:
    """Do it. No error leaves this function: the daemon is told."""
    draft = Draft(task.run)
    last: LastRuns = {}
    site = Site(task.settings, LogProgress(), logger.warning, logger.debug, identity=task.identity)
    try:
        with closing(site):
            if task.what == "prepare":
                last, failure = _prepare(site, draft)
                if failure is not None:
                    raise failure
            else:
                _run(site, task, draft)
    except RunSkipped as exc:
        return Reply(run=draft.run, error=str(exc), hint=exc.hint, exit_code=exc.exit_code, skipped=True)
    except BackupdError as exc:
        return Reply(run=draft.run, error=str(exc), hint=exc.hint, exit_code=exc.exit_code, last=last)
    except KeyboardInterrupt:
        return Reply(run=draft.run, error="interrupted: the daemon stops", exit_code=Interrupted.exit_code)
    except Exception as exc:
        logger.opt(exception=True).error("this should not have happened")
        return Reply(run=draft.run, error=f"{type(exc).__name__}: {exc}", exit_code=BackupdError.exit_code)
    return Reply(run=draft.run, last=last)


def _run(site: Site, task: Task, draft: Draft) -> None:
    plan, settings = task.run.plan, task.settings
    if task.run.kind == "prune":
        errors = run_prune(site, draft)
        if (error := judge_prune(errors, len(settings.stores) - len(errors))) is not None:
            raise error
        return
    assert plan is not None  # of all other runs that are scheduled
    match task.run.kind:
        case "backup":
            judge_backup(run_backup(site, plan, draft, overlap=task.overlap))
        case "drill":
            judge_drill(run_drill(site, newest_to_drill(site, plan, draft), draft).record)
        case "verify":
            run_verify(site, plan, settings.plans[plan].verify.read_data, draft).require_good()
        case kind:
            raise AssertionError(kind)


def _prepare(site: Site, draft: Draft) -> tuple[LastRuns, BackupdError | None]:
    """Recover, and ask the stores. That something can't be recovered now keeps nothing else from being done."""
    failure = None
    try:
        _, errors = run_recover(site, draft)
        failure = next(iter(errors), None)
    except BackupdError as exc:
        failure = exc
    plans = [name for name, plan in site.settings.plans.items() if plan.schedule is not None]
    last = last_runs(site, plans)
    try:
        # From then on this machine has a name, and only what bears it counts as its own: not before all was asked.
        if site.security.signer is not None and last.keys() >= set(plans):
            site.security.signer()
    except BackupdError as exc:
        failure = failure or exc
    return last, failure


def _terminated(_number: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough: undoing must not be interrupted
    raise KeyboardInterrupt


def _end_with_the_daemon() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
