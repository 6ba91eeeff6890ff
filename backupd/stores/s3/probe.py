"""What a server can do, found out by trying: many that speak S3 ignore or refuse parts of it."""

from __future__ import annotations

import secrets
from collections.abc import Mapping

from msgspec import Struct, field

from backupd.errors import ObjectExists, StoreDenied, StoreError, StoreUnavailable
from backupd.model import StoreFacts
from backupd.stores.s3.client import Bucket
from backupd.stores.s3.errors import code_of, status_of
from backupd.stores.s3.reading import read_object

PROBE_PREFIX = "probe/"
"""Keys of probe objects. One stays behind only where deleting is denied."""

_MAY_BE_THE_CHECKSUM = {400, 411, 501}


class Capabilities(Struct, frozen=True):
    """What was found. `conditional_put`: a PUT with `If-None-Match: *` does not replace an object.

    `versioned`: the bucket keeps what is deleted or written over.
    """

    conditional_put: bool
    details: Mapping[str, str] = field(default_factory=dict)
    versioned: bool = False

    def facts(self) -> StoreFacts:
        """The same for people."""
        return StoreFacts(conditional_create=self.conditional_put, details=self.details)


def probe(bucket: Bucket) -> Capabilities:
    """Write an object, read it back, try to write it again, delete it: five or six small requests.

    May turn the bucket's checksums off.
    """
    key = PROBE_PREFIX + secrets.token_hex(8)
    details = {"kind": "s3", "endpoint": bucket.options.endpoint, "bucket": bucket.options.bucket}
    details["checksums"] = _try_checksums(bucket, key)
    versioned = bucket.look(key).version is not None
    details["versions"] = "kept" if versioned else "not kept"
    details["create only if absent"] = condition = _try_condition(bucket, key)
    details["delete"] = _try_delete(bucket, key)
    return Capabilities(conditional_put=condition == "works", details=details, versioned=versioned)


def _try_checksums(bucket: Bucket, key: str) -> str:
    """Write the object, without checksums if the server refuses them or stores them in the object."""
    try:
        _write_and_compare(bucket, key)
    except StoreError as first:
        signature = code_of(first) == "SignatureDoesNotMatch"
        if bucket.options.checksum != "auto" or not (
            isinstance(first, _GarbledError) or signature or status_of(first) in _MAY_BE_THE_CHECKSUM
        ):
            raise
        bucket.drop_checksums()
        try:
            _write_and_compare(bucket, key)
        except StoreError:
            raise first from None
        return f"not sent: refused with {code_of(first) or 'a changed object'}"
    return "sent" if bucket.checksums else "not sent: when_required is set"


class _GarbledError(StoreError):
    """What came back is not what was sent."""


def _write_and_compare(bucket: Bucket, key: str) -> None:
    body = key.encode()
    try:
        bucket.put(key, body, mark="probe", absent=False, storage_class=False)
    except StoreDenied as exc:
        if code_of(exc) != "AccessDenied":
            raise
        # A policy may allow nothing but writes of what is absent.
        bucket.put(key, body, mark="probe", absent=True, storage_class=False)
    found = read_object(bucket, key)
    if found != body:
        raise _GarbledError(f"store {bucket.store}: what was read from {key} is not what was written")


def _try_condition(bucket: Bucket, key: str) -> str:
    try:
        bucket.put(key, key.encode(), mark="probe", absent=True, storage_class=False)
    except ObjectExists:
        return "works"
    except (StoreUnavailable, StoreDenied):
        raise
    except StoreError as exc:
        return f"refused with {code_of(exc)}"
    return "ignored by the server"


def _try_delete(bucket: Bucket, key: str) -> str:
    try:
        bucket.delete(key)
    except StoreDenied as exc:
        return f"denied with {code_of(exc)}"
    return "allowed"
