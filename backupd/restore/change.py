"""The part of a restore that can be finished or undone: journaled, swapped, taken back."""

from __future__ import annotations

from collections.abc import Sequence

from backupd.errors import BackupdError, ServiceUnhealthy, SourceError
from backupd.journal import Journal, RestoreAct
from backupd.restore.around import look_around, refuse_users
from backupd.restore.standstill import Standstill
from backupd.restore.swap import Swap
from backupd.restore.target import RestoreRequest, Step
from backupd.runtime import Runtime


class Change:
    """All volumes of a restore, changed together. It is in the journal once it is made: before the first write.

    Order of calls: stage all (elsewhere), `swap`, start the services, `finish`; or `take_back` instead, from anywhere.
    """

    def __init__(self, steps: Sequence[Step], request: RestoreRequest, runtime: Runtime) -> None:
        self._steps = steps
        self._request = request
        self._runtime = runtime
        self._journal = Journal(runtime.state)
        self._still: Standstill | None = None
        self._begun = False
        self._acts = [
            self._journal.begin(
                RestoreAct(
                    volume=step.volume,
                    swap=step.swap.id,
                    keep_old=request.keep_old,
                    created=step.survey is None,
                    under=not request.stop,
                ),
                runtime.clock.now(),
            )
            for step in steps
        ]

    def swap(self, still: Standstill) -> None:
        """Stop the services, and exchange old and new in every volume. VolumeInUse if somebody else came meanwhile."""
        self._still = still
        still.stop()
        refuse_users(look_around(self._steps, self._request, self._runtime.engine.services), self._request)
        self._begun = True
        self._journal.decide(self._acts, forward=True)
        for step in self._steps:
            step.swap.swap()

    def finish(self) -> None:
        """Drop the old data. The services are well, or as well as they get."""
        if self._still is not None:
            self._still.end()
        for step in self._steps:
            step.swap.finish(keep_old=self._request.keep_old)
        self._journal.end(self._acts)

    def take_back(self, reason: BaseException) -> None:
        """Put everything back, and start the services. A failure leaves the journal as it is, for `recover`.

        SourceError if that fails; ServiceUnhealthy, in place of the one that was the reason, to say what came of it.
        """
        self._journal.decide(self._acts, forward=False)
        self._undo(reason)
        self._journal.end(self._acts)
        if self._still is not None:
            self._go_on(self._still, reason)

    def _undo(self, reason: BaseException) -> None:
        failed = None
        if self._still is not None and self._begun:
            try:
                self._still.stop()
            except BackupdError as exc:
                raise self._not_undone(reason, exc) from reason
        for step in self._steps:
            try:
                undo(step.swap, self._runtime, created=step.survey is None)
            except BackupdError as exc:
                self._runtime.progress.note(f"{step.volume}: could not be put back: {exc}")
                failed = failed or exc
        if failed is not None:
            raise self._not_undone(reason, failed) from reason

    @staticmethod
    def _not_undone(reason: BaseException, failed: BackupdError) -> SourceError:
        return SourceError(
            f"the restore failed ({str(reason) or type(reason).__name__}) and could not be undone: {failed}",
            hint="run `backupd recover`",
        )

    def _go_on(self, still: Standstill, reason: BaseException) -> None:
        unhealthy = None
        try:
            still.start(give_up=False)
        except ServiceUnhealthy as exc:
            unhealthy = exc
        except BackupdError as exc:
            raise SourceError(
                f"the restore failed ({str(reason) or type(reason).__name__}), the old data are in place, but not all"
                f" services could be started: {exc}",
                hint="`backupd recover` tries again",
            ) from reason
        still.end()
        for name, seconds in still.away_seconds.items():
            self._runtime.progress.note(f"{name} is back, after {seconds:.1f} s")
        if isinstance(reason, ServiceUnhealthy):
            now = f"but {unhealthy}" if unhealthy else "and all services are well again"
            raise ServiceUnhealthy(
                f"{reason}: the old data are back in place, {now}",
                hint="--timeout waits longer, --no-rollback keeps the restored data all the same",
            ) from reason
        if unhealthy is not None:
            self._runtime.progress.note(f"the old data are in place, but {unhealthy}")


def undo(swap: Swap, runtime: Runtime, *, created: bool) -> None:
    """Put the old data back; a volume that the restore created goes, unless something is in it or uses it by now."""
    engine, volume = swap.engine, swap.volume
    if engine.inspect(volume) is None:
        if not created:
            raise SourceError(f"{volume} is gone")
        return
    swap.undo()
    if not created:
        return
    if swap.survey().empty and not engine.services.users(volume):
        engine.remove(volume)
    else:
        runtime.progress.note(f"{volume} was created for this restore, and stays: it is used by now")
