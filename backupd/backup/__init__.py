"""Backup: volumes in, a snapshot out."""

from backupd.backup.archiving import ArchiveJob, Origin, Stream
from backupd.backup.operation import BackupResult, back_up, open_or_create, sweep, take_snapshot
from backupd.backup.parent import Parent, find_parent

__all__ = [
    "ArchiveJob",
    "BackupResult",
    "Origin",
    "Parent",
    "Stream",
    "back_up",
    "find_parent",
    "open_or_create",
    "sweep",
    "take_snapshot",
]
