"""One bucket through boto3: the client, the requests that more than one module makes, and the errors' translation."""

from __future__ import annotations

import base64
import hashlib
import secrets
import threading
import zlib
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import boto3
from botocore.config import Config
from msgspec import Struct

from backupd import __version__
from backupd.errors import ConfigError, ObjectNotFound, StoreError
from backupd.model import ObjectInfo
from backupd.ports import Clock
from backupd.stores.s3.errors import no_bucket, s3_errors, status_of
from backupd.stores.s3.options import S3Options

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef

READERS = 16
"""Connections kept for reading, besides one for each upload thread."""

WRITER_MARK = "backupd-write"
"""User metadata with a random mark of the write that made an object: tells one's own object from another's."""


class Found(Struct, frozen=True):
    """What a HEAD tells: the object, the mark of its write, its version (None without versioning), its lock's end."""

    info: ObjectInfo
    mark: str | None
    version: str | None
    locked_until: datetime | None


class Bucket:
    """A bucket and the prefix in it. Keys are given without the prefix. Thread-safe.

    The client is made by the first request, so that a wrong profile or certificate file shows up as that request's
    error. `checksums` says whether uploads carry a CRC32; `drop_checksums` turns that off for good.
    """

    def __init__(self, store: str, options: S3Options, clock: Clock) -> None:
        self.store = store
        self.options = options
        self.clock = clock
        self.checksums = options.checksum != "when_required"
        self._client: S3Client | None = None
        self._lock = threading.Lock()

    def errors(self, action: str) -> AbstractContextManager[None]:
        """Within it, what boto3 raises becomes a BackupdError that begins with the store and `action`."""
        return s3_errors(self.store, self.options, action)

    @property
    def client(self) -> S3Client:
        """The boto3 client. To be used within `errors`."""
        with self._lock:
            if self._client is None:
                self._client = _make_client(self.options, checksums=self.checksums)
            return self._client

    def drop_checksums(self) -> None:
        """Send no checksums from now on."""
        with self._lock:
            self.checksums = False
            self._client = None

    def close(self) -> None:
        """Close idle connections."""
        with self._lock:
            if self._client is not None:
                self._client.close()

    def where(self, key: str) -> dict[str, Any]:
        """The parameters that say which object is meant."""
        return {"Bucket": self.options.bucket, "Key": self.options.key_prefix + key}

    def attributes(self, key: str, mark: str, *, storage_class: bool = True) -> dict[str, Any]:
        """The parameters that an object is created with."""
        options = self.options
        chosen: dict[str, Any] = {"Metadata": {WRITER_MARK: mark}}
        if options.lock and self.is_locked(key):
            chosen["ObjectLockMode"] = options.lock.mode.upper()
            chosen["ObjectLockRetainUntilDate"] = options.lock.until(self.clock.now())
        if options.storage_class and storage_class:
            chosen["StorageClass"] = options.storage_class
        if options.sse:
            chosen["ServerSideEncryption"] = options.sse
        if options.sse_kms_key_id:
            chosen["SSEKMSKeyId"] = options.sse_kms_key_id
        return chosen

    def is_locked(self, key: str) -> bool:
        """Whether an object of that name is to be locked."""
        return self.options.lock is not None and not key.startswith(self.options.unlocked)

    def checksum(self, body: bytes | bytearray) -> dict[str, Any]:
        """The parameters for the checksum of a body, none if the server is not sent any.

        Given as a header. What botocore would do by itself over TLS, a trailer, has no Content-Length, which some
        servers refuse (411), and cuts the body into pieces at great cost.
        """
        checksum = {}
        if self.checksums:
            checksum["ChecksumCRC32"] = base64.b64encode(zlib.crc32(body).to_bytes(4)).decode()
        if self.options.lock is not None:  # what locks has to carry one: moto takes no CRC32 for it, RGW knows none
            checksum["ContentMD5"] = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
        return checksum

    def put(
        self, key: str, body: bytes | bytearray, *, mark: str, absent: bool, storage_class: bool = True
    ) -> str | None:
        """One PUT; with `absent` only if the server finds nothing under `key` (ObjectExists). Returns the version."""
        condition: dict[str, Any] = {"IfNoneMatch": "*"} if absent else {}
        with self.errors(f"writing {key}"):
            answer = self.client.put_object(
                Body=one_piece(body),
                **self.where(key),
                **self.attributes(key, mark, storage_class=storage_class),
                **self.checksum(body),
                **condition,
            )
        return version_of(answer)

    def get(self, key: str, **wanted: Any) -> GetObjectOutputTypeDef:
        """Begin a GET. The caller reads and closes the body."""
        return self.client.get_object(**self.where(key), **wanted)

    def head(self, key: str) -> tuple[ObjectInfo, str | None]:
        """Size and time of an object, and the mark of its write."""
        found = self.look(key)
        return found.info, found.mark

    def look(self, key: str, **wanted: Any) -> Found:
        """Everything that a HEAD tells. The lock only to credentials that may see it (`s3:GetObjectRetention`)."""
        try:
            with self.errors(f"looking at {key}"):
                found = self.client.head_object(**self.where(key), **wanted)
        except ObjectNotFound:
            self.require_bucket()
            raise
        until = found.get("ObjectLockRetainUntilDate")
        return Found(
            ObjectInfo(key, found["ContentLength"], found["LastModified"].astimezone(UTC)),
            found.get("Metadata", {}).get(WRITER_MARK),
            version_of(found),
            until.astimezone(UTC) if until else None,
        )

    def require_bucket(self) -> None:
        """StoreError if the bucket is missing: a HEAD of an object cannot tell that from a missing object."""
        try:
            with self.errors("looking at the bucket"):
                self.client.head_bucket(Bucket=self.options.bucket)
        except ObjectNotFound as exc:
            raise no_bucket(f"store {self.store}", self.options) from exc
        except StoreError as exc:
            if status_of(exc) == 0:
                raise
            # The server answered, only not to this question: s3:ListBucket may be denied. The object is missing.

    def delete(self, key: str) -> None:
        """Delete one object."""
        try:
            with self.errors(f"deleting {key}"):
                self.client.delete_object(**self.where(key))
        except ObjectNotFound:
            return


def version_of(answer: Any) -> str | None:
    """The version that an answer speaks of; None without versioning, and while it is suspended."""
    version = answer.get("VersionId")
    return None if version in {None, "null"} else str(version)


def new_mark() -> str:
    """A mark for one write; see `WRITER_MARK`."""
    return secrets.token_hex(8)


def one_piece(body: bytes | bytearray) -> Any:
    """A body for boto3 (whose types know no bytearray, though it takes one).

    It sends a bytearray in one piece, and turns bytes into a file that is sent in pieces of 16 KiB.
    """
    return body if isinstance(body, bytearray) else bytearray(body)


def _make_client(options: S3Options, *, checksums: bool) -> S3Client:
    if options.ca_bundle and not Path(options.ca_bundle).is_file():
        raise ConfigError(f"ca_bundle: there is no file {options.ca_bundle}")
    session = boto3.Session(
        aws_access_key_id=options.access_key_id,
        aws_secret_access_key=options.secret_access_key,
        aws_session_token=options.session_token,
        profile_name=options.profile,
        region_name=options.region,
    )
    when: Literal["when_supported", "when_required"] = "when_supported" if checksums else "when_required"
    config = Config(
        connect_timeout=options.connect_timeout_seconds,
        read_timeout=options.read_timeout_seconds,
        retries={"mode": "standard", "total_max_attempts": options.max_attempts},
        max_pool_connections=options.upload_threads + READERS,
        tcp_keepalive=True,
        s3={"addressing_style": options.addressing_style},
        request_checksum_calculation=when,
        response_checksum_validation=when,
        user_agent_extra=f"backupd/{__version__}",
    )
    return session.client(
        "s3",
        region_name=session.region_name or "us-east-1",
        endpoint_url=options.endpoint_url,
        verify=(options.ca_bundle or None) if options.verify_tls else False,
        config=config,
    )
