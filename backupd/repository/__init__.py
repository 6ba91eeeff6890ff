"""Snapshots over a store: object names, documents, and what is read and written of them."""

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

__all__ = [
    "Archive",
    "Base",
    "Failure",
    "HashedWriter",
    "Manifest",
    "ObjectRef",
    "Reason",
    "Repository",
    "RepositoryConfig",
    "read_checked",
    "read_pieces",
]
