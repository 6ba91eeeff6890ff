"""Streamed objects: multipart uploads whose parts are sent by a bounded pool while the next is filled."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from typing import Any

from backupd.errors import StoreError
from backupd.model import ObjectInfo
from backupd.stores.s3.claims import Claim, Claims
from backupd.stores.s3.client import Bucket, new_mark, one_piece
from backupd.stores.s3.errors import code_of, status_of
from backupd.stores.s3.locks import require_lock
from backupd.stores.s3.parts import PartPlan
from backupd.stores.s3.probe import Capabilities
from backupd.stores.s3.publish import put_new, require_absent, require_size, was_written_by
from backupd.stores.writing import Writer


class Uploads:
    """What the writers of one store share: its pool, its claims, and the ids of the uploads that are under way."""

    def __init__(self, pool: Executor, claims: Claims) -> None:
        self.pool = pool
        self.claims = claims
        self.live: set[str] = set()
        self.conditional_complete = True


class MultipartWriter(Writer):
    """An object sent in parts, or in one request if it fits in the first part.

    Memory: the part being filled and those in flight. With parts of size P (`PartPlan`), in flight are at most
    max(1, upload_threads x part_size_bytes / P), so all in all max(upload_threads x part_size_bytes, P) + P:
    40 MiB by default, 128 MiB once an object of unknown size has passed 33 GiB and P is 64 MiB.

    A failed part surfaces in the next `write` or in `commit`. Requests have been retried by boto3 then.
    """

    def __init__(
        self, bucket: Bucket, capabilities: Callable[[], Capabilities], uploads: Uploads, key: str, plan: PartPlan
    ) -> None:
        super().__init__(key)
        self._bucket = bucket
        self._capabilities = capabilities
        self._uploads = uploads
        self._plan = plan
        self._budget = bucket.options.upload_threads * bucket.options.part_size_bytes
        self._mark = new_mark()
        self._upload_id: str | None = None
        self._claim: Claim | None = None
        self._begun_twice = False
        self._part = bytearray(plan.size(1))
        self._filled = 0
        self._size = 0
        self._pending: set[Future[dict[str, Any]]] = set()
        self._sent: list[dict[str, Any]] = []
        self._count = 0

    def _append(self, data: memoryview) -> None:
        self._collect(block=False)
        while data:
            if self._filled == len(self._part):
                self._send()
            taken = min(len(data), len(self._part) - self._filled)
            self._part[self._filled : self._filled + taken] = data[:taken]
            self._filled += taken
            self._size += taken
            data = data[taken:]

    def _finish(self) -> ObjectInfo:
        if self._upload_id is None:
            del self._part[self._filled :]
            put_new(self._bucket, self._capabilities(), self._key, self._part, self._mark)
        else:
            self._send(last=True)
            while self._pending:
                self._collect(block=True)
            self._complete(self._upload_id)
            self._uploads.live.discard(self._upload_id)
            self._upload_id = None
            self._unclaim(keep=False)
        found = self._bucket.look(self._key)
        if found.info.size != self._size and found.mark == self._mark:
            self._bucket.delete(self._key)
        require_size(self._bucket, self._key, self._size, found.info.size)
        require_lock(self._bucket, found)
        return found.info

    def _abort(self) -> None:
        wait([future for future in self._pending if not future.cancel()])  # a part that came after the abort would stay
        self._pending.clear()
        self._part = bytearray()
        keep = self._claim is not None  # an upload that was begun without an answer is found by its key
        try:
            if self._upload_id is not None:
                self._uploads.live.discard(self._upload_id)
                abort_upload(self._bucket, self._key, self._upload_id)
                keep = False
        finally:
            self._unclaim(keep=keep)

    def _unclaim(self, *, keep: bool) -> None:
        if self._claim is not None:
            if self._begun_twice and not keep:
                self._claim.begun_twice()
            self._claim.close(keep=keep or self._begun_twice)
            self._claim = None

    def _send(self, *, last: bool = False) -> None:
        """Hand the filled part to the pool, once there is room for it."""
        if self._upload_id is None:
            self._upload_id = self._begin()
            self._uploads.live.add(self._upload_id)
        while len(self._pending) >= max(1, self._budget // len(self._part)):
            self._collect(block=True)
        body, self._count = self._part, self._count + 1
        del body[self._filled :]
        self._part, self._filled = bytearray(0 if last else self._plan.size(self._count + 1)), 0
        self._pending.add(self._uploads.pool.submit(self._upload, self._upload_id, self._count, body))

    def _collect(self, *, block: bool) -> None:
        """Take the results of parts that are done, waiting for one with `block`; raises what went wrong."""
        if not self._pending:
            return
        done, self._pending = wait(self._pending, timeout=None if block else 0, return_when=FIRST_COMPLETED)
        self._sent += [future.result() for future in done]

    def _begin(self) -> str:
        self._capabilities()  # settles whether there are checksums
        self._claim = self._uploads.claims.claim(self._key)
        extra: dict[str, Any] = {"ChecksumAlgorithm": "CRC32"} if self._bucket.checksums else {}
        with self._bucket.errors(f"beginning {self._key}"):
            answer = self._bucket.client.create_multipart_upload(
                **self._bucket.where(self._key), **self._bucket.attributes(self._key, self._mark), **extra
            )
        self._claim.begun(answer["UploadId"])
        self._begun_twice = answer["ResponseMetadata"].get("RetryAttempts", 0) > 0
        return answer["UploadId"]

    def _upload(self, upload_id: str, number: int, body: bytearray) -> dict[str, Any]:
        checksum = self._bucket.checksum(body)
        with self._bucket.errors(f"writing part {number} of {self._key}"):
            answer = self._bucket.client.upload_part(
                Body=one_piece(body), UploadId=upload_id, PartNumber=number, **self._bucket.where(self._key), **checksum
            )
        checksum.pop("ContentMD5", None)  # only a request's, no part's
        return {"PartNumber": number, "ETag": answer["ETag"], **checksum}

    def _complete(self, upload_id: str) -> None:
        """Publish, never over an object that is seen: not every server heeds the condition, so look first as well."""
        require_absent(self._bucket, self._key)
        try:
            if not (self._uploads.conditional_complete and self._capabilities().conditional_put):
                self._request_complete(upload_id)
                return
            try:
                self._request_complete(upload_id, IfNoneMatch="*")
            except StoreError as exc:
                if status_of(exc) not in {400, 501}:
                    raise
                self._request_complete(upload_id)
                self._uploads.conditional_complete = False
        except StoreError:
            # The answer to an earlier try of the same request may have been lost.
            if not was_written_by(self._bucket, self._key, self._mark):
                raise

    def _request_complete(self, upload_id: str, **condition: Any) -> None:
        parts: Any = sorted(self._sent, key=lambda part: part["PartNumber"])
        with self._bucket.errors(f"completing {self._key}"):
            self._bucket.client.complete_multipart_upload(
                **self._bucket.where(self._key), UploadId=upload_id, MultipartUpload={"Parts": parts}, **condition
            )


def abort_upload(bucket: Bucket, key: str, upload_id: str) -> None:
    """Abort an upload and free its parts; one that is gone is not an error."""
    try:
        with bucket.errors(f"aborting the upload of {key}"):
            bucket.client.abort_multipart_upload(**bucket.where(key), UploadId=upload_id)
    except StoreError as exc:
        if code_of(exc) != "NoSuchUpload":
            raise
