"""What a configuration leads to: engine, stores, repositories, keys and history, each made when it is first needed."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct, field

from backupd.errors import BackupdError, NoRepository, SnapshotNotFound
from backupd.history import History
from backupd.jobs.found import find
from backupd.jobs.identity import identity_loader
from backupd.known import KnownRepositories
from backupd.ports import Engine, Progress, Store
from backupd.repository import Elsewhere, Manifest, Repository
from backupd.runs import Recorder
from backupd.runtime import Runtime
from backupd.security import Security, no_identities
from backupd.settings import Settings
from backupd.wiring import SystemClock, make_runtime, make_security, make_store, make_stores, new_id

if TYPE_CHECKING:
    from backupd.observe import Observers


class Site(Struct):
    """Where jobs are done. `store_name`: use that store only. `interactive`: a person can be asked for a passphrase.

    `warn` is told what a user should know and `detail` what those want who asked to hear more. Not thread-safe.
    """

    settings: Settings
    progress: Progress
    warn: Callable[[str], None]
    detail: Callable[[str], None] = lambda _: None
    store_name: str | None = None
    identity: Path | None = None
    interactive: bool = False
    _security: Security | None = None
    _observers: Observers | None = None
    _opened: list[Store | Engine] = field(default_factory=list)

    @property
    def security(self) -> Security:
        """Keys, and whom to believe. A secret key is read, and a passphrase asked for, when it is first needed."""
        if self._security is None:
            identities = no_identities
            if self.identity is not None:
                identities = identity_loader(self.identity, os.environ, interactive=self.interactive)
            self._security = make_security(self.settings, identities, self.warn)
        return self._security

    def recorder(self) -> Recorder:
        """Records runs of this process. If `notifications.manual` says so, who is to be told has been at `close`."""
        clock, history = SystemClock(), History(Path(self.settings.state_dir))
        if self.settings.notifications.manual:
            from backupd.observe import make_observers  # noqa: PLC0415  (few are told of what is done by hand)

            self._observers = make_observers(self.settings, history, clock, self.warn)
        return Recorder(history, clock, new_id, self.warn, self._observers.watchers if self._observers else ())

    def runtime(self, engine: Engine | None = None) -> Runtime:
        """What operations need; with an engine of its own in place of the configured one, if given."""
        runtime = make_runtime(self.settings, self.progress, engine, self.security)
        self.closing(runtime.engine)
        self.detail(f"engine: {runtime.engine.name}, {runtime.threads} threads, state in {runtime.state}")
        return runtime

    def closing(self, opened: Store | Engine) -> None:
        """Close it in the end."""
        self._opened.append(opened)

    def stores(self, names: Sequence[str]) -> list[Store]:
        """Stores to write to: those of that name, or the one and only."""
        return self._make((self.store_name,) if self.store_name else names)

    def other_stores(self) -> list[Store]:
        """Those besides the one and only, to read from; none where no single one was named."""
        return self._make([name for name in self.settings.stores if self.store_name and name != self.store_name])

    def _make(self, names: Sequence[str]) -> list[Store]:
        stores = make_stores(self.settings, names)
        self._opened += stores
        return stores

    def repositories(self) -> Iterator[Repository]:
        """The repositories to read: that of the one and only store, else of every one that answers, as configured.

        A store that does not answer is passed over with a warning: at 3 a.m. the one that does is what counts. If none
        does, the first one's error is raised.
        """
        failure: BackupdError | None = None
        answered = False
        for name in [self.store_name] if self.store_name else list(self.settings.stores):
            try:
                repository = self.repository_in(name)
            except BackupdError as exc:
                if failure is not None or answered:
                    self.warn(str(exc))
                failure = failure or exc
                continue
            if failure is not None and not answered:
                self.warn(f"{failure}; reading from store {name}")
            answered = True
            self.detail(f"store {name}: repository {repository.config.id}")
            yield repository
        if not answered:
            assert failure is not None  # the settings have at least one store
            raise failure

    def repository_in(self, name: str) -> Repository:
        """The repository of one store; NoRepository if there never was one, StoreError if it is not what it was."""
        store = make_store(self.settings, name)
        self._opened.append(store)
        known = KnownRepositories(Path(self.settings.state_dir))
        try:
            repository = Repository.open(store, threads=self.settings.threads, security=self.security)
        except NoRepository:
            known.check(name, None)
            raise
        if self.security.trust is not None:  # another id would make it a repository that we know nothing of
            known.check(name, repository.config.id)
        return repository

    def find(self, snapshot: str, volumes: Collection[str] = ()) -> tuple[Repository, Manifest]:
        """A snapshot, and a repository that holds it, helped by the other stores unless there is one and only.

        For `latest`, the newest of all stores with `volumes` that is not known to be damaged. One that is gets chosen
        only if it is named or there is no other, and then a warning says so.
        """
        repository, manifest = find(self.repositories(), snapshot, volumes, self.warn)
        return repository.encrypting_like(manifest).helped_by(self._elsewhere(repository)), manifest

    def _elsewhere(self, repository: Repository) -> Elsewhere | None:
        """The other stores, in the configuration's order; None if there are none, or one was named."""
        names = [name for name in self.settings.stores if name != repository.store.name]
        if self.store_name or not names:
            return None

        def opener(name: str) -> Callable[[], Store]:
            def opened() -> Store:
                store = make_store(self.settings, name)
                self._opened.append(store)
                return store

            return opened

        return Elsewhere({name: opener(name) for name in names}, self.progress.note)

    def newest_of(self, plan: str, *, run: bool = False) -> tuple[Repository, Manifest]:
        """The newest snapshot of a plan, in whatever store it is; `run`: rather a run of all of it by this machine.

        SnapshotNotFound, NoRepository only if all stores answered and nothing is wrong in any: else that is the error.
        """
        self.settings.plan(plan)  # says what there is, if there is none of that name
        found: list[tuple[Repository, Manifest]] = []
        silent: list[BackupdError] = []
        damaged: list[BackupdError] = []
        for name in [self.store_name] if self.store_name else list(self.settings.stores):
            try:
                repository = self.repository_in(name)
                manifests, problems = repository.snapshots()
            except BackupdError as exc:
                silent.append(exc)
                continue
            found += ((repository, one) for one in manifests if one.plan == plan and one.reason == "backup")
            damaged += problems
        if not found:
            nothing = SnapshotNotFound(f"plan {plan} has no snapshot yet", hint="`backupd backup` takes one")
            raise min(
                [*silent, *damaged, nothing], key=lambda error: isinstance(error, NoRepository | SnapshotNotFound)
            )
        for error in silent:
            self.warn(str(error))
        machine = self.security.machine() if run else None
        return max(found, key=lambda pair: (run and pair[1].is_run_of(plan, machine), pair[1].time))

    def close(self) -> None:
        """Let go of engines and stores, once what is being delivered has been."""
        if self._observers is not None:
            self._observers.flush()
        for opened in self._opened:
            opened.close()
