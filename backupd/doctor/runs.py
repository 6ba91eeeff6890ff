"""What the history says: successes that are too old, and what did not go well when it was done last."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from backupd.doctor.repositories import Held
from backupd.doctor.result import Result
from backupd.history import History, Outcome, RunKind
from backupd.runtime import Runtime
from backupd.settings import Settings
from backupd.words import duration

_ENDED: tuple[Outcome, ...] = ("done", "partial", "failed", "interrupted")


def look_at_runs(settings: Settings, runtime: Runtime, seen: Sequence[Held]) -> Iterator[Result]:
    """Plans that have had no success for longer than their `max_age`, and the last of what else has a schedule."""
    history = History(runtime.state)
    for name, plan in settings.plans.items():
        if plan.max_age is not None:
            last = _last_success(name, history, seen, runtime.security.machine())
            yield _age(name, last, plan.max_age, runtime.clock.now())
        if plan.verify.schedule is not None:
            yield _last(history, "verify", name)
        if plan.drill.schedule is not None:
            yield _last(history, "drill", name)
    if settings.prune.schedule is not None:
        yield _last(history, "prune", None)


def _last_success(plan: str, history: History, seen: Sequence[Held], machine: str | None) -> datetime | None:
    """As the history tells, or, should it have been lost, this machine's snapshots."""
    run = history.last("backup", plan, ["done"])
    times = [run.finished] if run is not None and run.finished is not None else []
    times += [found.finished for one in seen for found in one.manifests if found.is_success_of(plan, machine)]
    return max(times, default=None)


def _age(plan: str, last: datetime | None, max_age: timedelta, now: datetime) -> Result:
    subject = f"plan {plan}"
    advice = f"`backupd history --plan {plan}` says why"
    if last is None:
        return Result("warning", subject, "has never succeeded", advice)
    text = f"last succeeded {duration(now - last)} ago, its max_age is {duration(max_age)}"
    return Result("error", subject, text, advice) if now - last > max_age else Result("ok", subject, text)


def _last(history: History, kind: RunKind, plan: str | None) -> Result:
    subject = f"{kind} of {plan}" if plan else kind
    run = history.last(kind, plan, _ENDED)
    if run is None:
        return Result("note", subject, "has a schedule, and has not been done yet here")
    when = f"{run.started:%Y-%m-%d %H:%M} UTC"
    if run.good:
        return Result("ok", subject, f"went well at {when}")
    broken = run.outcome == "failed" and kind != "prune"
    text = f"the last one, of {when}, is {run.outcome}: {run.error}"
    return Result("error" if broken else "warning", subject, text, f"`backupd history {run.id[:8]}` says more")
