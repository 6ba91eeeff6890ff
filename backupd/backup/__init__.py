"""Backup: volumes in, a snapshot out."""

from backupd.backup.archiving import ArchiveJob, Origin, Stream
from backupd.backup.operation import BackupResult, back_up, open_or_create
from backupd.backup.parent import Parent, find_parent
from backupd.backup.snapshot import take_snapshot

__all__ = [
    "ArchiveJob",
    "BackupResult",
    "Origin",
    "Parent",
    "Stream",
    "back_up",
    "find_parent",
    "open_or_create",
    "take_snapshot",
]
