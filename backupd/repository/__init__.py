"""Snapshots over a store: object names, documents, and what is read and written of them."""

from backupd.repository.extract import END_OF_TAR, read_ranges
from backupd.repository.manifest import (
    Archive,
    Base,
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
    "Archive",
    "Base",
    "Failure",
    "HashedWriter",
    "Manifest",
    "ObjectRef",
    "Range",
    "Reason",
    "Repository",
    "RepositoryConfig",
    "Selection",
    "below",
    "link_target",
    "normalized",
    "read_checked",
    "read_pieces",
    "read_ranges",
    "select_paths",
    "spans",
]
