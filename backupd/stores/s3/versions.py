"""What a bucket with versions still holds of deleted objects."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from backupd.errors import StoreDenied
from backupd.locking import OldVersions
from backupd.stores.s3.client import Bucket

if TYPE_CHECKING:
    from botocore.paginate import Paginator


class _Deleted(Struct):
    """A key whose newest entry is a delete marker: that, older markers, and versions, all as (id, bytes)."""

    key: str
    since: datetime
    markers: list[str] = field(default_factory=list)
    versions: list[tuple[str, int]] = field(default_factory=list)


class _Count(Struct):
    count: int = 0
    bytes: int = 0


class S3Versions:
    """See `backupd.locking.Versions`. A listing of all versions for each call, 1,000 a request."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self.purges = bucket.options.purge_versions

    def tidy(self, before: datetime) -> OldVersions:
        """See Versions. Markers go last: without them the object would be back."""
        remaining, purged = _Count(), _Count()
        locked: list[tuple[str, datetime | None]] = []
        for deleted in self._deleted():
            refused = False
            for version, size in deleted.versions:
                if self.purges and deleted.since < before:
                    if self._remove(deleted.key, version):
                        purged.count, purged.bytes = purged.count + 1, purged.bytes + size
                        continue
                    locked.append((deleted.key, self._lock(deleted.key, version)))
                remaining.count, remaining.bytes = remaining.count + 1, remaining.bytes + size
                refused = True
            if self.purges and not refused and deleted.since < before:
                for marker in reversed(deleted.markers):
                    self._remove(deleted.key, marker)
        return OldVersions(remaining.count, remaining.bytes, purged.count, purged.bytes, tuple(locked))

    def _remove(self, key: str, version: str) -> bool:
        try:
            with self._bucket.errors(f"removing an old version of {key}"):
                self._bucket.client.delete_object(**self._bucket.where(key), VersionId=version)
        except StoreDenied:
            return False
        return True

    def _lock(self, key: str, version: str) -> datetime | None:
        try:
            return self._bucket.look(key, VersionId=version).locked_until
        except StoreDenied:
            return None

    def _deleted(self) -> Iterator[_Deleted]:
        """Every deleted key. Entries of a key come newest first, in one page or in several."""
        found: dict[str, _Deleted] = {}
        for page in self._pages():
            for marker in page.get("DeleteMarkers", ()):
                if marker["IsLatest"]:
                    key = self._key(marker)
                    found[key] = _Deleted(key, marker["LastModified"].astimezone(UTC))
            for marker in page.get("DeleteMarkers", ()):
                if (deleted := found.get(self._key(marker))) is not None:
                    deleted.markers.append(marker["VersionId"])
            for version in page.get("Versions", ()):
                if (deleted := found.get(self._key(version))) is not None:
                    deleted.versions.append((version["VersionId"], version["Size"]))
        yield from found.values()

    def _key(self, entry: Any) -> str:
        return str(entry["Key"]).removeprefix(self._bucket.options.key_prefix)

    def _pages(self) -> Iterator[Any]:
        options = self._bucket.options
        with self._bucket.errors("listing versions"):
            paginator: Paginator[Any] = self._bucket.client.get_paginator("list_object_versions")
            pages = iter(paginator.paginate(Bucket=options.bucket, Prefix=options.key_prefix))
        while True:
            with self._bucket.errors("listing versions"):
                page = next(pages, None)
            if page is None:
                return
            yield page
