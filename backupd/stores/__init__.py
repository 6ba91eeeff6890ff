"""Where backups go: a directory, S3, memory. `S3Store` is imported on first use, as boto3 is slow and large."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backupd.stores.local import LocalStore
from backupd.stores.memory import MemoryStore
from backupd.stores.s3 import S3Options

if TYPE_CHECKING:
    from backupd.stores.s3 import S3Store

__all__ = ["LocalStore", "MemoryStore", "S3Options", "S3Store"]


def __getattr__(name: str) -> object:
    if name == "S3Store":
        from backupd.stores.s3 import S3Store  # noqa: PLC0415  (see above)

        return S3Store
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
