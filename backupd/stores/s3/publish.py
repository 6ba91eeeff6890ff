"""Objects that are written with one request, and never over another."""

from __future__ import annotations

import time

from backupd.errors import ObjectExists, ObjectNotFound, StoreError
from backupd.stores.s3.client import Bucket
from backupd.stores.s3.errors import code_of
from backupd.stores.s3.probe import Capabilities
from backupd.stores.s3.reading import read_object

CONFLICT_TRIES = 4
"""AWS answers 409 while a delete of the same key is under way and asks to try again."""

CONFLICT_PAUSE_SECONDS = 0.2


def put_new(bucket: Bucket, capabilities: Capabilities, key: str, body: bytes | bytearray, mark: str) -> None:
    """Write `body` under `key` unless there is something (ObjectExists). `mark` is random, one for each write.

    Where the server cannot decide that, a look beforehand and a comparison afterwards do. This is weaker: of two
    writers at the same moment both may succeed, one after the other, and the later object stays.
    """
    if not capabilities.conditional_put:
        require_absent(bucket, key)
        bucket.put(key, body, mark=mark, absent=False)
        if not _is_what_was_written(bucket, key, mark, body):
            raise ObjectExists(f"store {bucket.store}: {key} was written by another at the same moment")
        return
    for remaining in reversed(range(CONFLICT_TRIES)):
        try:
            bucket.put(key, body, mark=mark, absent=True)
        except ObjectExists as exc:
            # The answer to an earlier try of the same request may have been lost.
            if was_written_by(bucket, key, mark):
                return
            if code_of(exc) != "ConditionalRequestConflict" or not remaining:
                raise
            time.sleep(CONFLICT_PAUSE_SECONDS)
        else:
            return


def require_absent(bucket: Bucket, key: str) -> None:
    """ObjectExists if there is an object under `key` now."""
    try:
        bucket.head(key)
    except ObjectNotFound:
        return
    raise ObjectExists(f"store {bucket.store}: {key} exists")


def was_written_by(bucket: Bucket, key: str, mark: str) -> bool:
    """Whether the object under `key` is the one of the write with that mark."""
    try:
        return bucket.head(key)[1] == mark
    except ObjectNotFound:
        return False


def _is_what_was_written(bucket: Bucket, key: str, mark: str, body: bytes | bytearray) -> bool:
    """By its mark and its content: a server may drop the one, two writers may agree on the other."""
    return bucket.head(key)[1] in {mark, None} and read_object(bucket, key) == body


def require_size(bucket: Bucket, key: str, size: int, found: int) -> None:
    """StoreError if an object that was just written is not as long as what was sent."""
    if found != size:
        raise StoreError(f"store {bucket.store}: {key} has {found} bytes after {size} were written")
