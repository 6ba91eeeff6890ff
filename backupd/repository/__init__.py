"""Snapshots over a store: object names, documents, and what is read and written of them."""

from backupd.repository.checkrecord import CheckKind, CheckRecord, VolumeCheck
from backupd.repository.checks import (
    Standings,
    forget_records,
    keep_check,
    new_check_id,
    repositories_named,
    standing_of,
    standings,
)
from backupd.repository.drillrecord import DrillOutcome, DrillRecord, Finding, ServiceDrill, VolumeDrill
from backupd.repository.drills import drills_of, keep_drill, last_drills, load_drill, newest_first, proven
from backupd.repository.elsewhere import Elsewhere
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
from backupd.repository.records import RecordDoubted
from backupd.repository.repository import Repository
from backupd.repository.selection import Range, Selection, below, link_target, normalized, select_paths, spans
from backupd.repository.standing import Standing, State

__all__ = [
    "END_OF_TAR",
    "HIDDEN",
    "Archive",
    "Base",
    "CheckKind",
    "CheckRecord",
    "DrillOutcome",
    "DrillRecord",
    "Elsewhere",
    "Encryption",
    "Failure",
    "Finding",
    "HashedWriter",
    "Manifest",
    "ObjectRef",
    "Range",
    "Reason",
    "RecordDoubted",
    "Repository",
    "RepositoryConfig",
    "Selection",
    "ServiceDrill",
    "Standing",
    "Standings",
    "State",
    "VolumeCheck",
    "VolumeDrill",
    "below",
    "drills_of",
    "forget_records",
    "keep_check",
    "keep_drill",
    "last_drills",
    "link_target",
    "load_drill",
    "new_check_id",
    "newest_first",
    "normalized",
    "proven",
    "read_checked",
    "read_pieces",
    "read_ranges",
    "repositories_named",
    "select_paths",
    "spans",
    "standing_of",
    "standings",
]
