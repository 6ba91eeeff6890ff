"""The names of objects in a store (docs/FORMAT.md)."""

from __future__ import annotations

import re

CONFIG = "backupd.json"
SNAPSHOTS = "snapshots/"
ARCHIVES = "archives/"
DRILLS = "drills/"
CHECKS = "checks/"
LEASES = "leases/"
PROBES = "probe/"
SEALED = ".age"
"""What the names of encrypted objects end with."""

WITHDRAWN = b'{"withdrawn": true}\n'
"""In place of a manifest: this snapshot will never be (docs/FORMAT.md, leases)."""

_ID = re.compile(r"[0-9a-f]{8,64}")
_SNAPSHOT = re.compile(rf"{SNAPSHOTS}({_ID.pattern})\.json")
_OF_ARCHIVE = re.compile(rf"{ARCHIVES}[a-z0-9][a-z0-9_.-]{{0,62}}/{_ID.pattern}(-[0-9]{{1,9}})?(\.[a-z0-9]+)+")
_DRILL = re.compile(rf"{DRILLS}({_ID.pattern})/[0-9]{{8}}T[0-9]{{6}}Z-[0-9a-f]+\.json")
_CHECK = re.compile(rf"{CHECKS}({_ID.pattern})/[0-9]{{8}}T[0-9]{{6}}Z-[0-9a-f]+\.json")
_LEASE = re.compile(rf"{LEASES}({_ID.pattern})\.([0-9]{{1,9}})\.json")


def snapshot(snapshot_id: str) -> str:
    """The manifest of a snapshot."""
    return f"{SNAPSHOTS}{snapshot_id}.json"


def snapshot_id(key: str) -> str | None:
    """The id that a manifest's key holds; None for any other key."""
    match = _SNAPSHOT.fullmatch(key)
    return match and match[1]


def data(volume: str, snapshot_id: str, suffix: str, number: int = 1) -> str:
    """The frames that an archive stored first; `suffix` is the codec's (`.tar.zst`).

    `number` counts the passes in which a snapshot reads a volume.
    """
    return f"{_archive(volume, snapshot_id, number)}{suffix}"


def index(volume: str, snapshot_id: str, number: int = 1, *, sealed: bool = False) -> str:
    """The index of an archive."""
    return f"{_archive(volume, snapshot_id, number)}.index.zst{SEALED if sealed else ''}"


def files(volume: str, snapshot_id: str, number: int = 1, *, sealed: bool = False) -> str:
    """The file list of an archive."""
    return f"{_archive(volume, snapshot_id, number)}.files.zst{SEALED if sealed else ''}"


def _archive(volume: str, snapshot_id: str, number: int) -> str:
    return f"{ARCHIVES}{volume}/{snapshot_id}{f'-{number}' if number > 1 else ''}"


def is_of_archive(key: str) -> bool:
    """Whether a key is one that an archive's objects have: data, index or file list."""
    return _OF_ARCHIVE.fullmatch(key) is not None


def is_sealed(key: str) -> bool:
    """Whether the object is encrypted, by its name."""
    return key.endswith(SEALED)


def drills_of(snapshot_id: str) -> str:
    """What the keys of all drill records of a snapshot begin with; they go with the snapshot."""
    return f"{DRILLS}{snapshot_id}/"


def drill(snapshot_id: str, drill_id: str) -> str:
    """The record of a drill. Ids begin with a time, so that keys sort by it."""
    return f"{drills_of(snapshot_id)}{drill_id}.json"


def drilled_snapshot(key: str) -> str | None:
    """The snapshot whose drill record has that key; None for any other key."""
    match = _DRILL.fullmatch(key)
    return match and match[1]


def checks_of(snapshot_id: str) -> str:
    """What the keys of all check records of a snapshot begin with; they go with the snapshot."""
    return f"{CHECKS}{snapshot_id}/"


def check(snapshot_id: str, check_id: str) -> str:
    """The record of a check. Ids begin with a time, so that keys sort by it."""
    return f"{checks_of(snapshot_id)}{check_id}.json"


def checked_snapshot(key: str) -> str | None:
    """The snapshot whose check record has that key; None for any other key."""
    match = _CHECK.fullmatch(key)
    return match and match[1]


def recorded_snapshot(key: str) -> str | None:
    """The snapshot that a record, of a drill or of a check, is about; None for any other key."""
    return drilled_snapshot(key) or checked_snapshot(key)


def lease(lease_id: str, number: int) -> str:
    """A lease: each renewal has the next number."""
    return f"{LEASES}{lease_id}.{number}.json"


def lease_of(key: str) -> tuple[str, int] | None:
    """The id and number that a lease's key holds; None for any other key."""
    match = _LEASE.fullmatch(key)
    return match and (match[1], int(match[2]))
