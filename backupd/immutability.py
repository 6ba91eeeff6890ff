"""Locks go on for as long as a kept snapshot needs what they lock (docs/decisions/0065-who-extends-locks.md)."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

from msgspec import Struct

from backupd.errors import ObjectNotFound, StoreError
from backupd.locking import locks_of
from backupd.ports import Store
from backupd.recovery import GUIDE, SCRIPT
from backupd.replicate import Holding
from backupd.repository import Manifest, Repository, layout, standings

_PARALLEL = 16

_EVERYONES = (layout.CONFIG, SCRIPT, GUIDE)
"""What every snapshot needs, or its reader."""


class Extended(Struct, frozen=True):
    """How many objects were looked at, how many locks renewed, and what the store said against others."""

    objects: int = 0
    renewed: int = 0
    refused: tuple[StoreError, ...] = ()

    @property
    def failure(self) -> StoreError | None:
        """All refusals as one error: of the kind of the first, with its hint."""
        if not self.refused:
            return None
        first = self.refused[0]
        more = f" (and {len(self.refused) - 1} more)" if len(self.refused) > 1 else ""
        return type(first)(f"the lock of what is kept could not be extended: {first}{more}", hint=first.hint)


def extend_locks(repository: Repository, kept: Iterable[Manifest], now: datetime) -> Extended:
    """Renew the locks, where that is due, of everything that the snapshots `kept` need; nothing without a policy.

    A request for each object, and one more for each lock that is renewed, 16 at a time. Idempotent, and harmless
    beside backups and prunes: locks only ever grow. What is missing is for `verify` to find.
    """
    locks = locks_of(repository.store)
    if locks is None or locks.policy is None:
        return Extended()
    keys = {*_EVERYONES}
    for manifest in kept:
        keys |= {layout.snapshot(manifest.id), *(ref.key for archive in manifest.archives for ref in archive.objects)}

    def extend(key: str) -> bool | StoreError:
        try:
            return locks.extend(key, now)
        except ObjectNotFound:
            return False
        except StoreError as exc:
            return exc

    with ThreadPoolExecutor(_PARALLEL) as pool:
        results = list(pool.map(extend, sorted(keys)))
    refused = tuple(result for result in results if isinstance(result, StoreError))
    return Extended(len(keys), sum(result is True for result in results), refused)


def keep_locked(target: Holding, holdings: Iterable[Holding], now: datetime) -> StoreError | None:
    """After a run of a plan: extend the locks of what a store is to keep of it; what went wrong, if anything did.

    As prune sees it: what the store lacks, or is known to be damaged there, takes nobody's place; the latter stays.
    """
    if not _has_policy(target.repository.store):
        return None
    try:
        there, damaged = target.repository.snapshot_ids(), standings(target.repository).damaged
    except StoreError as exc:
        return exc
    everywhere = {manifest.id: manifest for holding in holdings for manifest in holding.manifests}
    here = [manifest for id_, manifest in everywhere.items() if id_ in there]
    sound = [manifest for manifest in here if manifest.id not in damaged]
    wanted = there if target.wanted is None else target.wanted(sound)
    kept = [manifest for manifest in here if manifest.id in wanted or manifest.id in damaged]
    return extend_locks(target.repository, kept, now).failure


def _has_policy(store: Store) -> bool:
    locks = locks_of(store)
    return locks is not None and locks.policy is not None
