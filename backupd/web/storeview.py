"""A view of the stores that is refreshed in the background: whoever asks gets what was seen last, at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from datetime import datetime, timedelta

from msgspec.structs import replace

from backupd.errors import BackupdError, NoRepository
from backupd.history import Run
from backupd.ports import Clock, Store
from backupd.repository import RecordDoubted, Repository, layout, standings
from backupd.security import Security
from backupd.web.state import StoreContent, StoreState


class StoreView:
    """Looks at each store every `every`, and when a run has ended; `start` begins the thread, `stop` ends it.

    A look lists all objects of a store, and reads its manifests if a run has ended or others are there than before.
    What fails leaves the last good look as it is.
    """

    def __init__(
        self,
        stores: Sequence[str],
        open_store: Callable[[str], Store],
        security: Callable[[], Security],
        clock: Clock,
        every: timedelta,
    ) -> None:
        self._open = open_store
        self._security = security
        self._clock = clock
        self._every = every
        self._seen: dict[str, StoreState] = dict.fromkeys(stores, StoreState())
        self._wake = threading.Event()
        self._anew = False
        self._ending = False
        self._thread: threading.Thread | None = None

    def began(self, run: Run) -> None:
        """Nothing has changed yet."""

    def ended(self, run: Run) -> None:
        """Look again: there may be a new snapshot."""
        if run.outcome != "skipped":
            self._anew = True
            self._wake.set()

    def seen(self) -> Mapping[str, StoreState]:
        """What is known, by store."""
        return dict(self._seen)

    def newest(self, plan: str) -> datetime | None:
        """When this machine's newest good snapshot of the plan was finished, as far as is known."""
        contents = [state.content for state in self.seen().values() if state.content is not None]
        found = (one for content in contents for one in content.manifests if one.is_success_of(plan, content.machine))
        return max((manifest.finished for manifest in found), default=None)

    def start(self) -> None:
        """Look from now on."""
        self._thread = threading.Thread(target=self._run, name="store view", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Look no more; a look that is under way ends by itself, a second at most is waited for it."""
        self._ending = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(1)

    def look(self) -> None:
        """Look at all stores now."""
        anew, self._anew = self._anew, False
        for name, before in self.seen().items():
            try:
                after = StoreState(self._look_at(name, None if anew else before.content))
            except BackupdError as exc:
                after = StoreState(before.content, str(exc))
            except Exception as exc:  # a mistake with one store must not make all others look as they were for ever
                after = StoreState(before.content, f"this should not have happened: {type(exc).__name__}: {exc}")
            self._seen[name] = after

    def _look_at(self, name: str, before: StoreContent | None) -> StoreContent:
        now, security = self._clock.now(), self._security()
        machine = security.machine()
        with closing(self._open(name)) as store:
            sizes, marks = _listed(store)
            if before is not None and before.marks == marks:
                return replace(before, time=now, objects=len(sizes), size_bytes=sum(sizes), machine=machine)
            try:
                repository = Repository.open(store, threads=1, security=security)
            except NoRepository:  # not yet
                return StoreContent(now, objects=len(sizes), size_bytes=sum(sizes))
            manifests, problems = repository.snapshots()
            found = standings(repository, marks)
            damaged = len(problems) + sum(not isinstance(problem, RecordDoubted) for problem in found.problems)
            return StoreContent(now, manifests, found.of, len(sizes), sum(sizes), damaged, marks, machine)

    def _run(self) -> None:
        while not self._ending:
            self.look()
            self._wake.wait(self._every.total_seconds())
            self._wake.clear()


def _listed(store: Store) -> tuple[list[int], frozenset[str]]:
    """The sizes of all objects, and the keys of snapshots and of their records, which say whether others are there."""
    sizes: list[int] = []
    marks: set[str] = set()
    for info in store.list():
        sizes.append(info.size)
        if info.key.startswith((layout.SNAPSHOTS, layout.CHECKS, layout.DRILLS)):
            marks.add(info.key)
    return sizes, frozenset(marks)
