"""What an engine and a bucket were found to be, for `backupd doctor`: frozen, and without a judgement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol, runtime_checkable

from msgspec import Struct, field


class EngineFacts(Struct, frozen=True):
    """A Docker Engine. `time` is its host's clock, None where asking is denied; `asked` is ours at that moment.

    `oldest_api` is the lowest that backupd works with. `image` is what helpers are made from, `image_there` whether the
    engine has it.
    """

    address: str
    version: str
    api_version: str
    oldest_api: str
    asked: datetime
    time: datetime | None
    rootless: bool
    own_container: str | None
    image: str
    image_there: bool


class Rule(Struct, frozen=True):
    """One rule of a bucket's lifecycle, those that are switched off left out. Days, None where it does nothing.

    `prefix` is what keys have to begin with; `narrowed`: it asks for tags or sizes besides.
    """

    name: str
    prefix: str
    narrowed: bool
    expires_days: int | None = None
    expires_on: datetime | None = None
    old_versions_days: int | None = None
    aborts_days: int | None = None
    moves_to: tuple[str, ...] = ()


class BucketFacts(Struct, frozen=True):
    """A bucket, as it was found by trying with a probe object; None in a field: it could not be found out.

    `skew_seconds` is how much the server's clock is ahead of ours. `lists` to `deletes`: whether these credentials can
    do that, `conditional`: whether If-None-Match is heeded. `versioned`: what is written over or deleted is kept;
    `removes_versions`: they can remove an old version for good. `lock_enabled`: the bucket has object lock,
    `lock_default` its own mode and days. `lock_holds`: a locked probe could not be removed; `lock_bypassed`: but by a
    special right that these credentials have. `lifecycle` None: it may not be read. `trouble` says why, by field.
    """

    bucket: str
    endpoint: str
    prefix: str
    encrypted_connection: bool
    checksums: str
    skew_seconds: float | None = None
    lists: bool | None = None
    reads: bool | None = None
    writes: bool | None = None
    conditional: bool | None = None
    overwrites: bool | None = None
    deletes: bool | None = None
    versioned: bool | None = None
    removes_versions: bool | None = None
    lock_enabled: bool | None = None
    lock_default: str | None = None
    lock_holds: bool | None = None
    lock_bypassed: bool | None = None
    lifecycle: Sequence[Rule] | None = None
    trouble: Mapping[str, str] = field(default_factory=dict)


@runtime_checkable
class ExaminedEngine(Protocol):
    """An engine that has more to tell."""

    def facts(self) -> EngineFacts:
        """What it is. EngineUnavailable if nobody answers."""
        ...


@runtime_checkable
class ExaminedBucket(Protocol):
    """A store that is a bucket."""

    def examine(self) -> BucketFacts:
        """Try what can be done there, with probe objects. StoreError if there is no bucket, or nobody answers."""
        ...
