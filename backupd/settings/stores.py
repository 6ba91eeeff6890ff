"""The stores of the configuration, told apart by `type`."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from backupd.model import MIB
from backupd.settings.types import AnyPath, Duration, Secret, Size, Text, WholeNumber

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}|arn:[^\s/]+[/:][^\s]+")


def _bucket(name: str) -> str:
    if not _BUCKET.fullmatch(name):
        raise ValueError("expected the bare name of a bucket, such as contravento-backups")
    return name


def _prefix(prefix: str) -> str:
    parts = prefix.strip("/").split("/")
    if parts != [""] and any(part in {"", ".", ".."} or not part.isprintable() for part in parts):
        raise ValueError("expected a prefix such as prod or teams/web, without empty, `.` or `..` parts")
    return prefix


def _endpoint(url: str) -> str:
    try:
        parts = urlsplit(url)
        good = parts.scheme in {"http", "https"} and parts.hostname and "@" not in parts.netloc and parts.port != 0
    except ValueError:
        good = False
    if not good or parts.query or parts.fragment:
        raise ValueError("expected a URL such as https://s3.example.org:9000, without a user name or password in it")
    return url


class Section(BaseModel):
    """A mapping of the configuration: frozen, and every key must be known."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class LocalStoreSettings(Section):
    """A store that is a directory."""

    type: Literal["local"] = Field(title="the type of the store")
    path: AnyPath = Field(title="a directory")


class ObjectLockSettings(Section):
    """How new objects are locked, and for how long after the last run that needed them."""

    mode: Literal["governance", "compliance"] = Field(title="governance or compliance")
    duration: Duration = Field(title="a duration")


class S3StoreSettings(Section):
    """A store that is a bucket, or a prefix in one. What is left out is left to boto3."""

    type: Literal["s3"] = Field(title="the type of the store")
    bucket: Annotated[str, AfterValidator(_bucket)] = Field(title="a bucket name")
    prefix: Annotated[str, AfterValidator(_prefix)] = Field(default="", title="a prefix")
    endpoint_url: Annotated[str, AfterValidator(_endpoint)] | None = Field(default=None, title="a URL")
    region: Text | None = Field(default=None, title="a region")
    addressing_style: Literal["auto", "path", "virtual"] = "auto"
    access_key_id: Secret | None = Field(default=None, title="an access key id", min_length=1)
    secret_access_key: Secret | None = Field(default=None, title="a secret access key", min_length=1)
    session_token: Secret | None = Field(default=None, title="a session token", min_length=1)
    profile: Text | None = Field(default=None, title="a profile")
    storage_class: Text | None = Field(default=None, title="a storage class")
    sse: Literal["AES256", "aws:kms"] | None = None
    sse_kms_key_id: Text | None = Field(default=None, title="a KMS key id")
    ca_bundle: AnyPath | None = Field(default=None, title="a PEM file")
    checksum: Literal["auto", "when_required", "when_supported"] = "auto"
    connect_timeout: Duration = Field(default=timedelta(seconds=10), title="a duration")
    read_timeout: Duration = Field(default=timedelta(seconds=60), title="a duration")
    max_attempts: WholeNumber = Field(default=5, ge=1, le=100)
    part_size: Size = Field(default=8 * MIB, ge=5 * MIB, le=1024 * MIB, title="a size")
    upload_threads: WholeNumber = Field(default=4, ge=1, le=64)
    object_lock: ObjectLockSettings | None = None
    purge_versions: bool = False


StoreSettings = Annotated[LocalStoreSettings | S3StoreSettings, Field(discriminator="type")]
