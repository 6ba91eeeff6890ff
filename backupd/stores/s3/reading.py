"""Ranged reads that give exactly what was asked for."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

from backupd.errors import IntegrityError, StoreError, StoreUnavailable
from backupd.stores.s3.client import Bucket

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef

READ_PAUSE_SECONDS = 0.2
"""Before a read is begun again; doubled each time."""


def read_object(bucket: Bucket, key: str, offset: int = 0, length: int | None = None) -> bytes:
    """Bytes from `offset`, `length` of them or to the end. Neither may be empty by itself: S3 has no empty range.

    A body that is cut on the way, or does not have the checksum that came with it, is asked for again, `max_attempts`
    times in all; a request that fails before the body begins has been retried by boto3.
    """
    wanted: dict[str, Any] = {}
    if offset or length is not None:
        wanted["Range"] = f"bytes={offset}-" + ("" if length is None else str(offset + length - 1))
    for attempt in range(1, bucket.options.max_attempts + 1):
        with bucket.errors(f"reading {key}"):
            answer = bucket.get(key, **wanted)
        body = answer["Body"]
        with closing(body):
            _require_range(bucket, key, offset, length, answer)
            try:
                with bucket.errors(f"reading {key}"):
                    data = body.read()
            except (StoreUnavailable, IntegrityError):
                if attempt == bucket.options.max_attempts:
                    raise
                time.sleep(READ_PAUSE_SECONDS * 2 ** (attempt - 1))
                continue
        if length is not None and len(data) != length:
            raise IntegrityError(f"store {bucket.store}: {len(data)} bytes of {key} came, {length} were asked for")
        return data
    raise AssertionError("max_attempts is at least 1")


def _require_range(bucket: Bucket, key: str, offset: int, length: int | None, answer: GetObjectOutputTypeDef) -> None:
    """IntegrityError if the object is too short, StoreError if the server sends something else than the range."""
    size = answer.get("ContentLength")
    if length is not None and size is not None and size < length:
        raise IntegrityError(f"store {bucket.store}: {key} ends at {offset + size}, before what was asked for")
    whole = answer["ResponseMetadata"]["HTTPStatusCode"] == 200
    if whole and (offset or (length is not None and size != length)):
        raise StoreError(f"store {bucket.store}: the server ignores the range that was asked of {key}")
