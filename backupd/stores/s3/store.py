"""A store in a bucket of S3, or of a server that speaks its protocol."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from backupd.errors import IntegrityError, StoreDenied, StoreError
from backupd.facts import BucketFacts
from backupd.model import ObjectInfo, StoreFacts
from backupd.ports import Clock
from backupd.stores.keys import check_key, check_range, is_key
from backupd.stores.s3.claims import Claims
from backupd.stores.s3.client import Bucket, new_mark
from backupd.stores.s3.examine import Examination
from backupd.stores.s3.locks import S3Locks, require_lock
from backupd.stores.s3.options import S3Options
from backupd.stores.s3.parts import plan_parts
from backupd.stores.s3.probe import Capabilities, probe
from backupd.stores.s3.publish import put_new
from backupd.stores.s3.reading import read_object
from backupd.stores.s3.remembered import Remembered
from backupd.stores.s3.upload import MultipartWriter, Uploads, abort_upload
from backupd.stores.s3.versions import S3Versions
from backupd.stores.writing import Writer

if TYPE_CHECKING:
    from botocore.paginate import Paginator


PAGE_SIZE = 1000
"""Entries in one answer to a listing, the most that S3 gives."""


class S3Store:
    """Objects in a bucket, below a prefix. Thread-safe.

    Before the first write the server is probed (see `probe`), unless `findings`, a file, says what came of it lately.
    `claims` is a directory in which this machine's processes say which uploads they are at.
    """

    def __init__(
        self, name: str, options: S3Options, clock: Clock, findings: Path | None = None, claims: Path | None = None
    ) -> None:
        self.name = name
        self._options = options
        self._bucket = Bucket(name, options, clock)
        self._pool = ThreadPoolExecutor(options.upload_threads, thread_name_prefix=f"store-{name}")
        self._claims = Claims(claims, options)
        self._uploads = Uploads(self._pool, self._claims)
        self._capabilities: Capabilities | None = None
        self._remembered = Remembered(findings, options, clock)
        self._lock = threading.Lock()

    def create(self, key: str, size_hint: int | None = None) -> Writer:
        """Begin a streamed object; see `MultipartWriter` for its memory. Nothing is sent before a part is full."""
        plan = plan_parts(self._options.part_size_bytes, self._options.max_parts, size_hint)
        return MultipartWriter(self._bucket, self._probe, self._uploads, check_key(key), plan)

    def put(self, key: str, data: bytes) -> ObjectInfo:
        """Write a small object, only if the key is absent; see `put_new` for servers that cannot decide that."""
        try:
            put_new(self._bucket, self._probe(), check_key(key), data, new_mark())
        except StoreError as exc:
            if type(exc) is StoreError:  # none of those that say nothing about the server's abilities
                self._remembered.forget()
            raise
        if self._bucket.is_locked(key):
            require_lock(self._bucket, self._bucket.look(key))
        return ObjectInfo(key, len(data))

    def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """Exactly the bytes that were asked for; see `read_object` for what is retried."""
        check_key(key)
        check_range(offset, length)
        if length == 0 or (length is None and offset):
            size = self.stat(key).size
            if offset > size:
                raise IntegrityError(f"store {self.name}: {key} ends at {size}, before what was asked for")
            if length == 0 or offset == size:
                return b""
        return read_object(self._bucket, key, offset, length)

    def stat(self, key: str) -> ObjectInfo:
        """Size and time of an object."""
        return self._bucket.head(check_key(key))[0]

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Every object in key order. All are fetched first, about 300 bytes of memory each.

        Not every server lists in key order: SeaweedFS goes through directories, where `a/b` comes before `a-b`.
        """
        found = []
        for page in self._pages("list_objects_v2", self._options.key_prefix + prefix):
            for item in page.get("Contents", ()):
                key = item["Key"].removeprefix(self._options.key_prefix)
                if is_key(key):  # not the `directory/` objects that some tools make
                    found.append(ObjectInfo(key, item["Size"], item["LastModified"].astimezone(UTC)))
        return iter(sorted(found, key=attrgetter("key")))

    def delete(self, key: str) -> None:
        """Delete one object. In a bucket with versions it is hidden, and goes when the bucket's own rules say so."""
        self._bucket.delete(check_key(key))

    def remove_stale_uploads(self, older_than: timedelta | None, now: datetime) -> Sequence[str]:
        """Abort multipart uploads that dead processes of this machine have begun, and of others' those that are old."""
        abandoned = self._claims.abandoned()
        if older_than is None and not abandoned.names:
            return ()
        suspects = [
            (key, upload_id)
            for key, upload_id, begun in self._unfinished()
            if upload_id not in self._uploads.live
            and ((older_than is not None and begun < now - older_than) or abandoned.has(key, upload_id))
        ]
        living = self._claims.living()  # asked now: somebody may have begun one of them in the meantime
        suspects = [(key, upload_id) for key, upload_id in suspects if not living.has(upload_id)]
        stale = [(key, upload_id) for key, upload_id in suspects if not living.may_have(key)]
        for key, upload_id in stale:
            abort_upload(self._bucket, key, upload_id)
        if len(stale) == len(suspects):
            self._claims.forget(abandoned)
        return [f"upload {upload_id} of {key}" for key, upload_id in stale]

    def facts(self) -> StoreFacts:
        """What the server was found to do. Writes a probe object if nothing was written before."""
        return self._probe().facts()

    def examine(self) -> BucketFacts:
        """What these credentials can do in the bucket, found out by trying; see `Examination`."""
        with contextlib.suppress(StoreDenied):  # which is among what is to be found out
            self._probe()  # settles whether there are checksums
        return Examination(self._bucket).run()

    def locks(self) -> S3Locks | None:
        """Object lock: there is none without versions. One that is asked for is never passed over in silence."""
        return S3Locks(self._bucket) if self._options.lock or self._is_versioned() else None

    def versions(self) -> S3Versions | None:
        """The bucket's old versions; None if it keeps none."""
        return S3Versions(self._bucket) if self._is_versioned() else None

    def close(self) -> None:
        """Wait for requests under way, then let go of threads and connections."""
        self._pool.shutdown(cancel_futures=True)
        self._bucket.close()

    def _is_versioned(self) -> bool:
        try:
            return self._probe().versioned
        except StoreDenied:  # who may not write can't find out, and needs it to delete only
            return False

    def _probe(self) -> Capabilities:
        with self._lock:
            if self._capabilities is None:
                self._capabilities = self._recalled() or self._found_out()
            return self._capabilities

    def _recalled(self) -> Capabilities | None:
        recalled = self._remembered.recall()
        if recalled is None:
            return None
        capabilities, checksums = recalled
        if not checksums:
            self._bucket.drop_checksums()
        return capabilities

    def _found_out(self) -> Capabilities:
        capabilities = probe(self._bucket)
        self._remembered.remember(capabilities, checksums=self._bucket.checksums)
        return capabilities

    def _unfinished(self) -> Iterator[tuple[str, str, datetime]]:
        """Key, id and beginning of every multipart upload below the prefix."""
        for page in self._pages("list_multipart_uploads", self._options.key_prefix):
            for item in page.get("Uploads", ()):
                if item["Key"].startswith(self._options.key_prefix):  # not every server heeds the prefix
                    yield item["Key"].removeprefix(self._options.key_prefix), item["UploadId"], item["Initiated"]

    def _pages(self, operation: Literal["list_objects_v2", "list_multipart_uploads"], prefix: str) -> Iterator[Any]:
        with self._bucket.errors("listing"):
            paginator: Paginator[Any] = self._bucket.client.get_paginator(operation)
            pages = iter(
                paginator.paginate(Bucket=self._options.bucket, Prefix=prefix, PaginationConfig={"PageSize": PAGE_SIZE})
            )
        while True:
            with self._bucket.errors("listing"):
                page = next(pages, None)
            if page is None:
                return
            yield page
