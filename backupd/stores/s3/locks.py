"""Object lock: new objects are locked as they are written, and again for as long as they are needed."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from backupd.errors import StoreDenied, StoreError
from backupd.stores.s3.client import Bucket, Found
from backupd.stores.s3.errors import code_of

_HINT = (
    "the bucket must have been made with object lock, and the credentials need s3:PutObjectRetention:"
    " `backupd doctor` tells which of both is missing"
)


class S3Locks:
    """See `backupd.locking.Locks`."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self.policy = bucket.options.lock

    def until(self, key: str) -> datetime | None:
        """See Locks."""
        until = self._bucket.look(key).locked_until
        return until if until is not None and until > self._bucket.clock.now() else None

    def extend(self, key: str, now: datetime) -> bool:
        """See Locks."""
        if self.policy is None or not self.policy.is_due(self._bucket.look(key).locked_until, now):
            return False
        set_lock(self._bucket, key, self.policy.until(now))
        return True


def require_lock(bucket: Bucket, found: Found) -> None:
    """Set the lock of an object that was just written, if it has none: not every server heeds what an upload asks for.

    Ceph RGW and moto ignore it in CreateMultipartUpload. StoreError if the server will not lock it at all.
    """
    policy, key = bucket.options.lock, found.info.key
    if policy is None or not bucket.is_locked(key):
        return
    now = bucket.clock.now()
    if policy.is_due(found.locked_until, now):
        set_lock(bucket, key, policy.until(now))


def set_lock(bucket: Bucket, key: str, until: datetime) -> None:
    """Lock an object until then, and see that it is. Never used to shorten a lock, which some servers would do."""
    assert bucket.options.lock is not None  # or there would be no mode
    retention: Any = {"Mode": bucket.options.lock.mode.upper(), "RetainUntilDate": until}
    try:
        with bucket.errors(f"locking {key}"):
            bucket.client.put_object_retention(**bucket.where(key), Retention=retention)
    except StoreError as exc:
        if type(exc) in {StoreError, StoreDenied}:
            raise type(exc)(str(exc), hint=_HINT) from exc
        raise
    found = bucket.look(key).locked_until
    if (found is None or found < until) and not _may_not_look(bucket, key):
        raise StoreError(f"store {bucket.store}: the server does not keep the lock of {key}", hint=_HINT)


def _may_not_look(bucket: Bucket, key: str) -> bool:
    try:
        with bucket.errors(f"reading the lock of {key}"):
            bucket.client.get_object_retention(**bucket.where(key))
    except StoreDenied:
        return True
    except StoreError as exc:
        if code_of(exc) not in {"NoSuchObjectLockConfiguration", "ObjectLockConfigurationNotFoundError"}:
            raise
    return False
