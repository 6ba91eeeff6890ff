"""Snapshots over a store: object names, documents, and what is read and written of them."""

from backupd.repository.drillrecord import DrillOutcome, DrillRecord, Finding, ServiceDrill, VolumeDrill
from backupd.repository.drills import drills_of, keep_drill, last_drills, load_drill, newest_first, proven
from backupd.repository.extract import END_OF_TAR, read_ranges
from backupd.repository.manifest import (
    HIDDEN,
    Archive,
    Base,
    Encryption,
    Failure,
    Manifest,
    ObjectRef,
    Reason,
    RepositoryConfig,
)
from backupd.repository.objects import HashedWriter, read_checked, read_pieces
from backupd.repository.repository import Repository
from backupd.repository.selection import Range, Selection, below, link_target, normalized, select_paths, spans

__all__ = [
    "END_OF_TAR",
    "HIDDEN",
    "Archive",
    "Base",
    "DrillOutcome",
    "DrillRecord",
    "Encryption",
    "Failure",
    "Finding",
    "HashedWriter",
    "Manifest",
    "ObjectRef",
    "Range",
    "Reason",
    "Repository",
    "RepositoryConfig",
    "Selection",
    "ServiceDrill",
    "VolumeDrill",
    "below",
    "drills_of",
    "keep_drill",
    "last_drills",
    "link_target",
    "load_drill",
    "newest_first",
    "normalized",
    "proven",
    "read_checked",
    "read_pieces",
    "read_ranges",
    "select_paths",
    "spans",
]
