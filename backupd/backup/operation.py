"""Backup: one run of a plan becomes one snapshot, in every store of the plan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import datetime, timedelta

from msgspec import Struct, field

from backupd import recovery
from backupd.archive import ChunkerParameters
from backupd.backup.snapshot import take_snapshot
from backupd.errors import BackupdError, IntegrityError, LeaseLost, NoRepository, RepositoryError, StoreError
from backupd.immutability import keep_locked
from backupd.known import KnownRepositories
from backupd.model import Plan
from backupd.ports import Store
from backupd.replicate import Holding, catch_up, lagging, look
from backupd.repository import Manifest, Repository
from backupd.runtime import Runtime

# What speaks against one store, and not against the volumes.
_STORE_TROUBLE = (StoreError, RepositoryError, IntegrityError, LeaseLost)

_STALE_AFTER = timedelta(days=1)


class BackupResult(Struct, frozen=True):
    """The snapshot that was taken, where it is, and which stores could not be brought up to date.

    `store` took it, `stores` are that one and those it was copied to.
    """

    manifest: Manifest
    store: str
    stores: tuple[str, ...] = ()
    store_failures: dict[str, str] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether all volumes are in it, all stores have it and all services go on."""
        return self.manifest.complete and not self.store_failures and not self.manifest.all_trouble


def back_up(plan: Plan, runtime: Runtime, stores: Sequence[Store]) -> BackupResult:
    """Take a snapshot into the first store that can be written, and bring the other stores up to date from it.

    A store that fails, or that another backupd prunes, is passed over and named in the result; the next run catches it
    up. StoreError when none of them took the snapshot, SourceError when no volume could be read.
    """
    with ExitStack() as leases:
        return _back_up(plan, runtime, stores, leases)


def _back_up(plan: Plan, runtime: Runtime, stores: Sequence[Store], leases: ExitStack) -> BackupResult:
    holdings: list[Holding] = []
    failures: dict[str, BackupdError] = {}

    def failed(store: Store, exc: BackupdError) -> None:
        failures[store.name] = exc
        runtime.progress.note(f"store {store.name} failed: {str(exc).removeprefix(f'store {store.name}: ')}")

    for store in stores:
        try:
            _sweep(store, runtime, None, runtime.clock.now())  # it may be what has filled the store
            repository = open_or_create(store, runtime)
            # Before the first look: what is seen from now on is not pruned.
            lease = leases.enter_context(runtime.leases(store).shared(f"backup of plan {plan.name}"))
            # With this machine's clock set wrong, what others write now would seem to be old.
            _sweep(store, runtime, _STALE_AFTER, lease.store_time() or runtime.clock.now())
            holdings.append(look(repository, plan, lease, runtime.clock, runtime.state, runtime.progress.note))
        except BackupdError as exc:
            failed(store, exc)
    damaged = {held.name: held.damaged[0] for held in holdings if held.damaged}
    for damage in (damage for held in holdings for damage in held.damaged):
        runtime.progress.note(f"damaged: {damage}")
    for holding in holdings:
        primary = holding.repository
        try:
            # What other stores took while this one was away: afterwards it would pass for pruned.
            behind = catch_up(holding, holdings, runtime.progress)
            manifest = take_snapshot(plan, runtime, primary, holding.lease)
        except _STORE_TROUBLE as exc:
            failed(primary.store, exc)
            continue
        if behind is not None:
            failed(primary.store, behind)
        sources = [held.with_newest(manifest) if held is holding else held for held in holdings]
        usable = [held for held in sources if held.name not in failures or held.name == primary.store.name]
        owed = [held.name for held in usable if manifest in lagging(held, usable)]
        for target in usable:
            for problem in _bring_up(target, holding, usable, runtime):
                failed(target.repository.store, problem)
        copies = [name for name in owed if name not in failures]
        store_failures = {name: str(exc) for name, exc in (damaged | failures).items()}
        return BackupResult(manifest, primary.store.name, (primary.store.name, *copies), store_failures)
    raise next(iter(failures.values()))


def _bring_up(target: Holding, source: Holding, usable: Sequence[Holding], runtime: Runtime) -> Iterator[BackupdError]:
    """Give a store what it lacks, and keep locked what it is to keep; everything that goes wrong."""
    behind = None if target.name == source.name else catch_up(target, usable, runtime.progress)
    if behind is not None:
        yield behind
    if (unlocked := keep_locked(target, usable, runtime.clock.now())) is not None:
        yield unlocked


def open_or_create(store: Store, runtime: Runtime) -> Repository:
    """The store's repository; an empty store becomes one, unless it held one before (StoreError).

    It has the means of recovery without backupd in it when this returns.
    """
    known = KnownRepositories(runtime.state)
    try:
        repository = Repository.open(store, threads=runtime.threads, security=runtime.security)
    except NoRepository:
        known.check(store.name, None)
        repository = Repository.open_or_create(
            store,
            threads=runtime.threads,
            now=runtime.clock.now(),
            new_id=runtime.new_id,
            chunker=ChunkerParameters(),
            security=runtime.security,
        )
    known.check(store.name, repository.config.id)
    known.remember(store.name, repository.config.id)
    recovery.install(store, runtime.progress.note)
    return repository


def _sweep(store: Store, runtime: Runtime, older_than: timedelta | None, now: datetime) -> None:
    """Remove what killed backups left half-written: this machine's at once, others' a day after they began it."""
    for removed in store.remove_stale_uploads(older_than, now):
        runtime.progress.note(f"store {store.name}: removed an unfinished upload: {removed}")
