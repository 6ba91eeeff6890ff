"""Drill records in a repository, and beside it where its store takes none.

A record belongs to its snapshot: `drills/<snapshot id>/` goes when the snapshot goes (`layout.drills_of`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from backupd.errors import BackupdError, IntegrityError, ObjectNotFound, SourceError
from backupd.repository import layout
from backupd.repository.drillrecord import DrillRecord
from backupd.repository.records import RecordDoubted, Records
from backupd.repository.repository import Repository

_PARALLEL_READS = 8


class LastDrills(NamedTuple):
    """The newest record of each snapshot that has one.

    And what is wrong with those that can't be read, and with those that are not believed.
    """

    records: Mapping[str, DrillRecord]
    damaged: list[BackupdError]
    doubted: list[BackupdError]


def keep_drill(repository: Repository, record: DrillRecord, state: Path) -> str | None:
    """Store a record with its snapshot; returns why it is kept in the state directory alone, if the store refused it.

    StoreUnavailable passes on: a record that is missed now can't be made up later, and the caller says so.
    """
    private = repository.security.recipients is not None
    return _records(repository, state).keep(layout.drill(record.snapshot, record.id), record, private=private)


def last_drills(repository: Repository, state: Path | None = None) -> LastDrills:
    """The newest record of each snapshot: of the store, and of the state directory if one is given."""
    records = _records(repository, state)
    newest = {snapshot: key for key in records.keys(layout.DRILLS) if (snapshot := layout.drilled_snapshot(key))}
    found = LastDrills({}, [], [])
    good: dict[str, DrillRecord] = {}

    def load(key: str) -> DrillRecord | BackupdError | None:
        try:
            return _load(records, key)
        except ObjectNotFound:  # pruned since it was listed
            return None
        except (IntegrityError, SourceError) as exc:
            return exc

    with ThreadPoolExecutor(_PARALLEL_READS) as pool:
        for snapshot, result in zip(newest, pool.map(load, newest.values()), strict=True):
            if isinstance(result, DrillRecord):
                good[snapshot] = result
            elif isinstance(result, RecordDoubted):
                found.doubted.append(result)
            elif result is not None:
                found.damaged.append(result)
    return found._replace(records=good)


def drills_of(repository: Repository, snapshot_id: str, state: Path | None = None) -> list[DrillRecord]:
    """All records of a snapshot, newest first. IntegrityError if one is damaged or not believed."""
    records = _records(repository, state)
    keys = filter(layout.drilled_snapshot, records.keys(layout.drills_of(snapshot_id)))
    return [_load(records, key) for key in reversed(list(keys))]


def proven(repository: Repository, state: Path | None = None) -> Mapping[str, DrillRecord]:
    """Snapshots, by id, whose last drill covered all of their volumes and found nothing wrong.

    One whose record can't be read, or is not believed, is not among them.
    """
    return {snapshot: record for snapshot, record in last_drills(repository, state).records.items() if record.good}


def load_drill(repository: Repository, key: str) -> DrillRecord:
    """The record that the store has under a key; IntegrityError if it is none, or not that of this key."""
    return _load(_records(repository, None), key)


def newest_first(records: Iterable[DrillRecord]) -> list[DrillRecord]:
    """In the order of their times."""
    return sorted(records, key=lambda record: (record.time, record.id), reverse=True)


def _records(repository: Repository, state: Path | None) -> Records:
    return Records.of(repository, state / "records" if state is not None else None)


def _load(records: Records, key: str) -> DrillRecord:
    record = records.load(key, DrillRecord)
    if layout.drill(record.snapshot, record.id) != key:
        raise IntegrityError(f"{records.store.name}: {key} is the record of another drill")
    return record
