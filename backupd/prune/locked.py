"""What a store's locks keep from going, and until when."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

from backupd.errors import ObjectNotFound
from backupd.locking import locks_of
from backupd.ports import Store
from backupd.repository import Manifest, layout

_PARALLEL = 16


def locked_keys(store: Store, keys: Collection[str]) -> dict[str, datetime]:
    """Those of the keys that are locked, and until when. A request for each, where the store has locks at all."""
    locks = locks_of(store) if keys else None
    if locks is None:
        return {}

    def until(key: str) -> datetime | None:
        try:
            return locks.until(key)
        except ObjectNotFound:
            return None

    with ThreadPoolExecutor(_PARALLEL) as pool:
        ordered = sorted(keys)
        return {key: end for key, end in zip(ordered, pool.map(until, ordered), strict=True) if end is not None}


def held_back(doomed: Iterable[Manifest], locked: Mapping[str, datetime], kept: Set[str]) -> dict[str, datetime]:
    """The ids of snapshots that stay whole because of a lock, and the moment at which they can go.

    While the space can't be had, the snapshot may as well be there: it goes when its manifest and all that it needs,
    and no kept snapshot does, can go.
    """
    held = {}
    for manifest in doomed:
        keys = {layout.snapshot(manifest.id), *(ref.key for archive in manifest.archives for ref in archive.objects)}
        if ends := [locked[key] for key in keys - kept if key in locked]:
            held[manifest.id] = max(ends)
    return held
