"""Runs as they happen: recorded in the history from their first moment, told to whoever watches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import msgspec

from backupd.errors import BackupdError, Interrupted, PartialFailure, RunSkipped, SourceError
from backupd.history import History, Outcome, Run, RunKind, Trigger
from backupd.ports import Clock


class Watcher(Protocol):
    """Told of runs, from the thread that they run in.

    What it raises is a BackupdError or a defect. A BackupdError is said, and keeps no run from going on.
    """

    def began(self, run: Run) -> None:
        """A run has begun."""
        ...

    def ended(self, run: Run) -> None:
        """It is over; `outcome` says how."""
        ...


class Draft:
    """What is known of a run by now."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def set(self, **fields: object) -> None:
        """Replace fields of the run."""
        self.run = msgspec.structs.replace(self.run, **fields)

    def note(self, text: str) -> None:
        """Keep a line with the run."""
        self.run = msgspec.structs.replace(self.run, notes=[*self.run.notes, text])

    def too_early(self, why: str) -> RunSkipped:
        """What to raise where there is nothing yet that the run could be about: nobody is notified of that."""
        self.set(early=True)
        return RunSkipped(f"skipped: nothing to {self.run.kind} yet: {why}")


class Recorder:
    """Records runs. `warn` is told when the history can't be kept or a watcher fails: neither ends a run.

    `watchers` may be replaced: those who watch when a run ends are told of it.
    """

    def __init__(
        self,
        history: History,
        clock: Clock,
        new_id: Callable[[], str],
        warn: Callable[[str], None],
        watchers: Sequence[Watcher] = (),
    ) -> None:
        self.history = history
        self._clock = clock
        self._new_id = new_id
        self._warn = warn
        self.watchers = watchers

    @contextmanager
    def run(
        self, kind: RunKind, plan: str | None = None, trigger: Trigger = "manual", *, part: bool = False
    ) -> Iterator[Draft]:
        """Record what happens in the block as one run. What it raises decides the outcome, and is raised on."""
        now = self._clock.now()
        draft = Draft(Run(id=self._new_id(), kind=kind, plan=plan, part=part, trigger=trigger, started=now))
        self._keep(draft.run)
        self._tell(lambda watcher: watcher.began(draft.run))
        try:
            yield draft
        except BaseException as exc:
            self._end(draft, *_verdict(exc))
            raise
        self._end(draft, "done" if draft.run.outcome == "running" else draft.run.outcome, None)

    def over(self, run: Run, error: BackupdError | None) -> None:
        """Record a run that took place, and has ended with that, as a whole."""
        self._end(Draft(run), *(("done", None) if error is None else _verdict(error)))

    def skipped(self, kind: RunKind, plan: str | None, trigger: Trigger, why: str) -> Run:
        """Record a run that did not take place."""
        now = self._clock.now()
        run = Run(
            id=self._new_id(),
            kind=kind,
            plan=plan,
            trigger=trigger,
            started=now,
            finished=now,
            outcome="skipped",
            notes=[why],
        )
        self._keep(run)
        self._tell(lambda watcher: watcher.ended(run))
        return run

    def settle(self) -> Sequence[Run]:
        """Write down, and tell, which runs were ended by a kill of their process; returns them."""
        try:
            settled = self.history.settle(self._clock.now())
        except SourceError as exc:
            self._warn(str(exc))
            return []
        for run in settled:
            self._tell(lambda watcher, run=run: watcher.ended(run))  # type: ignore[misc]
        return settled

    def _end(self, draft: Draft, outcome: Outcome, error: BackupdError | None) -> None:
        draft.set(finished=self._clock.now(), outcome=outcome)
        if outcome == "skipped":
            draft.note(str(error))
        elif error is not None:
            draft.set(error=str(error), exit_code=error.exit_code)
        self._keep(draft.run)
        self._tell(lambda watcher: watcher.ended(draft.run))

    def _keep(self, run: Run) -> None:
        try:
            self.history.put(run)
        except SourceError as exc:
            self._warn(str(exc))

    def _tell(self, call: Callable[[Watcher], None]) -> None:
        for watcher in self.watchers:
            try:
                call(watcher)
            except BackupdError as exc:
                self._warn(str(exc))


def _verdict(error: BaseException) -> tuple[Outcome, BackupdError]:
    """What a run amounts to that ended with that."""
    match error:
        case RunSkipped():
            return "skipped", error
        case PartialFailure():
            return "partial", error
        case KeyboardInterrupt() | Interrupted():
            return "interrupted", Interrupted(str(error) or "interrupted by a signal")
        case BackupdError():
            return "failed", error
        case _:
            return "failed", BackupdError(f"{type(error).__name__}: {error}")
