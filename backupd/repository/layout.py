"""The names of objects in a store (docs/FORMAT.md)."""

from __future__ import annotations

import re

CONFIG = "backupd.json"
RECOVERY = "RECOVERY.md"
SNAPSHOTS = "snapshots/"
ARCHIVES = "archives/"

_ID = re.compile(r"[0-9a-f]{8,64}")
_SNAPSHOT = re.compile(rf"{SNAPSHOTS}({_ID.pattern})\.json")


def snapshot(snapshot_id: str) -> str:
    """The manifest of a snapshot."""
    return f"{SNAPSHOTS}{snapshot_id}.json"


def snapshot_id(key: str) -> str | None:
    """The id that a manifest's key holds; None for any other key."""
    match = _SNAPSHOT.fullmatch(key)
    return match and match[1]


def data(volume: str, snapshot_id: str, suffix: str) -> str:
    """The frames that an archive stored first; `suffix` is the codec's (`.tar.zst`)."""
    return f"{ARCHIVES}{volume}/{snapshot_id}{suffix}"


def index(volume: str, snapshot_id: str) -> str:
    """The index of an archive."""
    return f"{ARCHIVES}{volume}/{snapshot_id}.index.zst"


def files(volume: str, snapshot_id: str) -> str:
    """The file list of an archive."""
    return f"{ARCHIVES}{volume}/{snapshot_id}.files.zst"
