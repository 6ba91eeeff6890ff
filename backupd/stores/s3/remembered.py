"""What was found out about a server, kept between runs, so that not each of them tries it anew."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import msgspec

from backupd.errors import SourceError
from backupd.malformed import MALFORMED
from backupd.model import AwareTime
from backupd.ports import Clock
from backupd.statefile import write_private
from backupd.stores.s3.options import S3Options
from backupd.stores.s3.probe import Capabilities

GOOD_FOR = timedelta(days=7)
"""Servers are upgraded, and credentials changed."""


class _Finding(msgspec.Struct, frozen=True, kw_only=True):
    about: str
    found: AwareTime
    conditional_put: bool
    checksums: bool
    details: Mapping[str, str]
    versioned: bool


# Made on import: msgspec 0.22 crashes when several threads are the first to decode a type.
_FINDING = msgspec.json.Decoder(_Finding)


class Remembered:
    """One file; `about` the bucket and all options by which an answer could differ. Losing it costs a probe."""

    def __init__(self, path: Path | None, options: S3Options, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        asked = (options.endpoint, options.bucket, options.prefix, options.addressing_style, options.checksum)
        who = (options.access_key_id, options.profile, options.storage_class, options.sse, options.lock)
        self._about = hashlib.sha256(repr((asked, who)).encode()).hexdigest()

    def recall(self) -> tuple[Capabilities, bool] | None:
        """What was found, and whether checksums are to be sent; None if nothing is known, or no longer."""
        if self._path is None:
            return None
        try:
            finding = _FINDING.decode(self._path.read_bytes())
        except (OSError, *MALFORMED):
            return None
        age = self._clock.now() - finding.found
        if finding.about != self._about or not timedelta(0) <= age < GOOD_FOR:
            return None
        return Capabilities(finding.conditional_put, finding.details, finding.versioned), finding.checksums

    def forget(self) -> None:
        """The server did something else: the next run finds out what it can do now."""
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)

    def remember(self, found: Capabilities, *, checksums: bool) -> None:
        """Keep it for the next time. Where it can't be kept, it is found out again."""
        if self._path is None:
            return
        now = self._clock.now()
        finding = _Finding(
            about=self._about,
            found=now,
            conditional_put=found.conditional_put,
            checksums=checksums,
            versioned=found.versioned,
            details={**found.details, "found out": now.isoformat(timespec="seconds")},
        )
        with contextlib.suppress(SourceError):
            write_private(self._path, msgspec.json.encode(finding), durable=False)
