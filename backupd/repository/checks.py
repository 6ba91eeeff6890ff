"""Check records in a repository, and what they say of its snapshots (`standing`).

A record belongs to its snapshot: `checks/<snapshot id>/` goes when the snapshot goes. A record that can't be read or is
not believed counts for nothing, and is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime, timedelta
from typing import NamedTuple

from backupd.errors import BackupdError, IntegrityError, ObjectNotFound, RepositoryError, SourceError
from backupd.ports import Store
from backupd.repository import layout
from backupd.repository.checkrecord import CheckRecord
from backupd.repository.drillrecord import DrillRecord
from backupd.repository.records import Records
from backupd.repository.repository import Repository
from backupd.repository.standing import Standing, standing, superseded
from backupd.security import Security

_PARALLEL_READS = 8
_STAMP = "%Y%m%dT%H%M%SZ"


class Standings(NamedTuple):
    """By id, of those snapshots that have records; the problems of records that count for nothing.

    `idle` are keys in the store without which nothing would change.
    """

    of: Mapping[str, Standing]
    problems: list[BackupdError]
    idle: list[str]

    @property
    def damaged(self) -> set[str]:
        """The ids of those that are known to be damaged."""
        return {id_ for id_, standing in self.of.items() if standing.state == "damaged"}

    def get(self, snapshot_id: str) -> Standing:
        """Of any snapshot."""
        return self.of.get(snapshot_id, Standing())


def keep_check(repository: Repository, record: CheckRecord) -> str | None:
    """Store a record with its snapshot; returns why it is kept in the state directory alone, if the store refused it.

    StoreUnavailable passes on, and so does a refusal where there is no state directory.
    """
    return _records(repository).keep(layout.check(record.snapshot, record.id), record)


def new_check_id(repository: Repository, snapshot_id: str, now: datetime, new_id: str) -> str:
    """An id that sorts behind those of all the snapshot's records, whatever the clock says."""
    records = _records(repository)
    last = [key.rpartition("/")[2] for key in records.keys(layout.checks_of(snapshot_id))][-1:]
    stamp = f"{now:{_STAMP}}"
    if last and last[0][: len(stamp)] >= stamp:
        stamp = f"{datetime.strptime(last[0][: len(stamp)], _STAMP) + timedelta(seconds=1):{_STAMP}}"
    return f"{stamp}-{new_id[:8]}"


def forget_records(repository: Repository, snapshots: Iterable[str]) -> None:
    """Remove what this machine has kept of snapshots that are gone. What is in the store goes with them."""
    records, gone = _records(repository), set(snapshots)
    for key in [*records.local_keys(layout.CHECKS), *records.local_keys(layout.DRILLS)]:
        if layout.recorded_snapshot(key) in gone:
            records.drop(key)


def standing_of(repository: Repository, snapshot_id: str) -> Standing:
    """The standing of one snapshot. Records that count for nothing are left aside."""
    records = _records(repository)
    prefixes = (layout.checks_of(snapshot_id), layout.drills_of(snapshot_id))
    return _standings(records, [key for prefix in prefixes for key in records.keys(prefix)]).get(snapshot_id)


def standings(repository: Repository, listed: Iterable[str] | None = None) -> Standings:
    """The standing of every snapshot; `listed` are keys that the store is known to hold, if it need not be asked."""
    records = _records(repository)
    prefixes = (layout.CHECKS, layout.DRILLS)
    if listed is None:
        return _standings(records, [key for prefix in prefixes for key in records.keys(prefix)])
    return _standings(records, {*listed, *(key for prefix in prefixes for key in records.local_keys(prefix))})


def repositories_named(store: Store, repository: str, security: Security) -> set[str]:
    """The ids of those that the check records in a store are about, as far as they are legible and believed.

    `repository` is the one that the store is said to hold, open or not: who is believed depends on it.
    """
    records = Records(store, repository, security, None)
    found = set()
    for info in store.list(layout.CHECKS):
        if layout.checked_snapshot(info.key):
            with suppress(RepositoryError, IntegrityError):
                found.add(records.load(info.key, CheckRecord).repository)
    return found


def _standings(records: Records, keys: Iterable[str]) -> Standings:
    ordered = sorted(keys)
    last = {snapshot: key for key in ordered if (snapshot := layout.drilled_snapshot(key))}
    wanted = [*filter(layout.checked_snapshot, ordered), *last.values()]
    checks: dict[str, list[CheckRecord]] = {}
    drills: dict[str, DrillRecord] = {}
    problems: list[BackupdError] = []
    idle: list[str] = []
    with ThreadPoolExecutor(_PARALLEL_READS) as pool:
        for key, result in zip(wanted, pool.map(lambda key: _load(records, key), wanted), strict=True):
            if isinstance(result, CheckRecord):
                checks.setdefault(result.snapshot, []).append(result)
            elif isinstance(result, DrillRecord):
                drills[result.snapshot] = result
            elif result is not None:
                problems.append(result)
                idle += [key] if layout.checked_snapshot(key) else []
    for id_, own in checks.items():
        idle += [layout.check(id_, check.id) for check in superseded(own, drills.get(id_))]
    found = {id_: standing(checks.get(id_, ()), drills.get(id_)) for id_ in checks.keys() | drills.keys()}
    return Standings(found, problems, idle)


def _records(repository: Repository) -> Records:
    return Records.of(repository, repository.security.records)


def _load(records: Records, key: str) -> CheckRecord | DrillRecord | BackupdError | None:
    try:
        if layout.drilled_snapshot(key):
            drill = records.load(key, DrillRecord)
            right = layout.drill(drill.snapshot, drill.id) == key
            return drill if right else _misplaced(records, key)
        check = records.load(key, CheckRecord)
        right = layout.check(check.snapshot, check.id) == key and check.repository == records.repository
        return check if right else _misplaced(records, key)
    except ObjectNotFound:  # pruned since it was listed
        return None
    except (IntegrityError, SourceError) as exc:
        return exc


def _misplaced(records: Records, key: str) -> IntegrityError:
    return IntegrityError(f"{records.store.name}: {key} is the record of something else")
