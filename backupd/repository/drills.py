"""Drill records in a repository, and beside it where its store takes none.

A record belongs to its snapshot: `drills/<snapshot id>/` goes when the snapshot goes (`layout.drills_of`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from backupd.errors import BackupdError, IntegrityError, ObjectNotFound, SourceError, StoreDenied, StoreError, StoreFull
from backupd.repository import layout
from backupd.repository.documents import decode, encode
from backupd.repository.drillrecord import DrillRecord
from backupd.repository.repository import Repository

_PARALLEL_READS = 8


class LastDrills(NamedTuple):
    """The newest record of each snapshot that has one, and what is wrong with those that can't be read."""

    records: Mapping[str, DrillRecord]
    damaged: list[BackupdError]


def keep_drill(repository: Repository, record: DrillRecord, state: Path) -> str | None:
    """Store a record with its snapshot; returns why it is kept in the state directory alone, if the store refused it.

    StoreUnavailable passes on: a record that is missed now can't be made up later, and the caller says so.
    """
    key = layout.drill(record.snapshot, record.id)
    data = encode(record)
    if repository.security.recipients is not None:
        _write(_local(repository, state) / key, data)
        return "what is encrypted is not told there"
    try:
        repository.store.put(key, data)
    except (StoreDenied, StoreFull) as exc:
        _write(_local(repository, state) / key, data)
        return str(exc)
    return None


def last_drills(repository: Repository, state: Path | None = None) -> LastDrills:
    """The newest record of each snapshot: of the store, and of the state directory if one is given."""
    newest: dict[str, str] = {}
    for key in [info.key for info in repository.store.list(layout.DRILLS)] + _local_keys(repository, state):
        snapshot = layout.drilled_snapshot(key)
        if snapshot is not None:
            newest[snapshot] = max(key, newest.get(snapshot, ""))
    records: dict[str, DrillRecord] = {}
    damaged: list[BackupdError] = []

    def load(key: str) -> DrillRecord | BackupdError | None:
        try:
            return _load(repository, key, state)
        except ObjectNotFound:  # pruned since it was listed
            return None
        except (IntegrityError, SourceError) as exc:
            return exc

    with ThreadPoolExecutor(_PARALLEL_READS) as pool:
        for snapshot, result in zip(newest, pool.map(load, newest.values()), strict=True):
            if isinstance(result, DrillRecord):
                records[snapshot] = result
            elif result is not None:
                damaged.append(result)
    return LastDrills(records, damaged)


def drills_of(repository: Repository, snapshot_id: str, state: Path | None = None) -> list[DrillRecord]:
    """All records of a snapshot, newest first. IntegrityError if one is damaged."""
    prefix = layout.drills_of(snapshot_id)
    keys = {info.key for info in repository.store.list(prefix)}
    keys |= {key for key in _local_keys(repository, state) if key.startswith(prefix)}
    return [_load(repository, key, state) for key in sorted(filter(layout.drilled_snapshot, keys), reverse=True)]


def proven(repository: Repository, state: Path | None = None) -> Mapping[str, DrillRecord]:
    """Snapshots, by id, whose last drill covered all of their volumes and found nothing wrong.

    One whose record can't be read is not among them.
    """
    return {snapshot: record for snapshot, record in last_drills(repository, state).records.items() if record.good}


def load_drill(repository: Repository, key: str) -> DrillRecord:
    """The record that the store has under a key; IntegrityError if it is none, or not that of this key."""
    return _load(repository, key, None)


def newest_first(records: Iterable[DrillRecord]) -> list[DrillRecord]:
    """In the order of their times."""
    return sorted(records, key=lambda record: (record.time, record.id), reverse=True)


def _load(repository: Repository, key: str, state: Path | None) -> DrillRecord:
    name = f"{repository.store.name}: {key}"
    local = _local(repository, state) / key if state is not None else None
    if local is not None and local.exists():
        try:
            return _checked(decode(local.read_bytes(), DrillRecord, str(local)), key, name)
        except OSError as exc:
            raise SourceError(f"cannot read {local}: {exc.strerror}") from exc
    return _checked(decode(repository.store.read(key), DrillRecord, name), key, name)


def _checked(record: DrillRecord, key: str, name: str) -> DrillRecord:
    if layout.drill(record.snapshot, record.id) != key:
        raise IntegrityError(f"{name} is the record of another drill")
    return record


def _local(repository: Repository, state: Path) -> Path:
    return state / "records" / repository.config.id


def _local_keys(repository: Repository, state: Path | None) -> list[str]:
    if state is None:
        return []
    root = _local(repository, state)
    return [path.relative_to(root).as_posix() for path in root.glob(f"{layout.DRILLS}*/*.json")]


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
    except OSError as exc:
        raise StoreError(f"the drill's record could not be kept in {path}: {exc.strerror}") from exc
