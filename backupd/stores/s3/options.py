"""How to reach a bucket and how to write to it."""

from __future__ import annotations

from typing import ClassVar, Literal
from urllib.parse import urlsplit

from backupd.errors import ConfigError
from backupd.model import MIB, LockPolicy
from backupd.records import Discreet
from backupd.stores.keys import is_key

SMALLEST_PART = 5 * MIB
"""What S3 asks of every part but the last ("Amazon S3 multipart upload limits")."""

LARGEST_PART = 1024 * MIB
"""S3 allows 5 GiB, but a part is held in memory, and one TLS write takes less than 2 GiB."""


class S3Options(Discreet, frozen=True, kw_only=True):
    """Everything about one bucket. What is None is left to boto3: environment, shared files, instance roles.

    `prefix` goes before every key, with a slash between. `endpoint_url` None means AWS. `addressing_style` `auto` is
    `path` with an endpoint and `virtual` without. `ca_bundle` is a PEM file that replaces the trusted authorities.

    `checksum`: whether uploads carry a CRC32 that the server checks. `auto` tries it and goes without if the server
    refuses; `when_supported` insists; `when_required` never sends one.

    `max_attempts` bounds how often one request is made, the first time included. `part_size_bytes` (plain multipart
    parts, at the beginning) and `upload_threads` bound memory, see `MultipartWriter`. `max_parts` is 10,000 in S3,
    1,000 in OpenStack Swift.

    `lock`: every new object is locked so, but those below `unlocked`, which are deleted all the time. `purge_versions`:
    old versions of deleted objects are removed by `versions().tidy`.
    """

    _hidden: ClassVar = (
        "access_key_id",
        "secret_access_key",
        "session_token",
    )

    bucket: str
    prefix: str = ""
    endpoint_url: str | None = None
    region: str | None = None
    addressing_style: Literal["auto", "path", "virtual"] = "auto"
    access_key_id: str | None = None
    secret_access_key: str | None = None
    session_token: str | None = None
    profile: str | None = None
    storage_class: str | None = None
    sse: Literal["AES256", "aws:kms"] | None = None
    sse_kms_key_id: str | None = None
    ca_bundle: str | None = None
    verify_tls: bool = True
    checksum: Literal["auto", "when_required", "when_supported"] = "auto"
    connect_timeout_seconds: float = 10
    read_timeout_seconds: float = 60
    max_attempts: int = 5
    part_size_bytes: int = 8 * MIB
    upload_threads: int = 4
    max_parts: int = 10_000
    lock: LockPolicy | None = None
    unlocked: tuple[str, ...] = ()
    purge_versions: bool = False

    def __post_init__(self) -> None:
        if self.prefix.strip("/") and not is_key(self.prefix.strip("/")):
            raise ConfigError(f"not a prefix for keys: {self.prefix!r}")
        if not SMALLEST_PART <= self.part_size_bytes <= LARGEST_PART:
            raise ConfigError(f"part size {self.part_size_bytes} is not between 5 MiB and 1 GiB")
        if min(self.max_attempts, self.upload_threads, self.max_parts) < 1:
            raise ConfigError("max_attempts, upload_threads and max_parts must be at least 1")
        if bool(self.access_key_id) != bool(self.secret_access_key):
            raise ConfigError("access_key_id and secret_access_key come together, or not at all")
        if self.endpoint_url is not None:
            parts = urlsplit(self.endpoint_url)
            if parts.scheme not in {"http", "https"} or not parts.hostname or "@" in parts.netloc:
                raise ConfigError(
                    "endpoint_url must look like https://host:port, without a user name or password in it"
                )

    @property
    def key_prefix(self) -> str:
        """`prefix` as it stands before a key: empty, or with one slash at its end."""
        stripped = self.prefix.strip("/")
        return f"{stripped}/" if stripped else ""

    @property
    def endpoint(self) -> str:
        """Where the requests go, for messages."""
        return self.endpoint_url or f"AWS S3 ({self.region or 'default region'})"
