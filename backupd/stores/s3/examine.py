"""Finds out by trying what credentials can do in a bucket: above all, whether they can destroy what is there."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

from msgspec import Struct, field

from backupd.errors import ObjectExists, StoreDenied, StoreError
from backupd.facts import BucketFacts, Rule
from backupd.stores.s3.client import Bucket, version_of
from backupd.stores.s3.errors import code_of, status_of
from backupd.stores.s3.probe import PROBE_PREFIX
from backupd.stores.s3.reading import read_object

LOCKED_FOR = timedelta(minutes=1)
"""How long the locked probe object stays at least: nobody can remove it before."""

_NOTHING_SET = {
    "NoSuchLifecycleConfiguration",
    "ObjectLockConfigurationNotFoundError",
    "NoSuchObjectLockConfiguration",
    "NoSuchTagSet",
}
_UNKNOWN_HERE = {400, 404, 405, 501}


class Examination(Struct):
    """One examination. Leaves nothing but what it was not allowed to remove, and the locked probe's version."""

    bucket: Bucket
    found: dict[str, Any] = field(default_factory=dict)
    trouble: dict[str, str] = field(default_factory=dict)

    def run(self) -> BucketFacts:
        """Try everything. StoreError if there is no bucket or nobody answers, StoreDenied for wrong credentials."""
        options = self.bucket.options
        self._look()
        key = PROBE_PREFIX + secrets.token_hex(8)
        versions: list[str] = []
        with self._trying("writes"):
            self._write(key, versions)
        if self.found.get("writes"):
            self._try_reading(key)
            self._try_overwriting(key, versions)
            self.found["versioned"] = bool(versions)
            self._try_deleting(key, versions)
        self._lock_settings()
        if self.found.get("versioned") and (self.found.get("lock_enabled") or options.lock):
            self._try_a_lock()
        self._lifecycle()
        return BucketFacts(
            bucket=options.bucket,
            endpoint=options.endpoint,
            prefix=options.key_prefix,
            encrypted_connection=not (options.endpoint_url or "").startswith("http://"),
            checksums="sent" if self.bucket.checksums else "not sent",
            trouble=self.trouble,
            **self.found,
        )

    def _look(self) -> None:
        """That there is a bucket, whether it may be listed, and what time it is there."""
        begun = self.bucket.clock.now()
        try:
            with self.bucket.errors("listing"):
                answer: Any = self.bucket.client.list_objects_v2(
                    Bucket=self.bucket.options.bucket, Prefix=self.bucket.options.key_prefix, MaxKeys=1
                )
        except StoreDenied as exc:
            if code_of(exc) != "AccessDenied":
                raise
            self.found["lists"], self.trouble["lists"] = False, str(exc)
            return
        self.found["lists"] = True
        date = answer["ResponseMetadata"].get("HTTPHeaders", {}).get("date")
        if date:
            ended = self.bucket.clock.now()
            middle = begun + (ended - begun) / 2
            skew = (parsedate_to_datetime(date).astimezone(UTC) - middle).total_seconds()
            # The header has whole seconds, cut off.
            self.found["skew_seconds"] = 0.0 if abs(skew) <= 1 + (ended - begun).total_seconds() else skew

    def _write(self, key: str, versions: list[str]) -> None:
        try:
            version = self.bucket.put(key, b"1", mark="probe", absent=False, storage_class=False)
        except StoreDenied as exc:
            if code_of(exc) != "AccessDenied":
                raise
            version = self.bucket.put(key, b"1", mark="probe", absent=True, storage_class=False)
            self.found["overwrites"] = False  # a policy asks for the condition
        versions += [version] if version else []
        self.found["writes"] = True

    def _try_reading(self, key: str) -> None:
        with self._trying("reads"):
            self.found["reads"] = read_object(self.bucket, key) == b"1"

    def _try_overwriting(self, key: str, versions: list[str]) -> None:
        with self._trying("conditional"):
            try:
                version = self.bucket.put(key, b"2", mark="probe", absent=True, storage_class=False)
                versions += [version] if version else []
                self.found["conditional"] = False
            except ObjectExists:
                self.found["conditional"] = True
        if "overwrites" not in self.found:
            with self._trying("overwrites"):
                version = self.bucket.put(key, b"3", mark="probe", absent=False, storage_class=False)
                versions += [version] if version else []
                self.found["overwrites"] = True

    def _try_deleting(self, key: str, versions: list[str]) -> None:
        marker = None
        with self._trying("deletes"):
            marker = self._delete(key)
            self.found["deletes"] = True
        if versions:
            with self._trying("removes_versions"):
                for version in versions:
                    self._delete(key, VersionId=version)
                if marker:  # last, or the object would be back
                    self._delete(key, VersionId=marker)
                self.found["removes_versions"] = True

    def _delete(self, key: str, **which: Any) -> str | None:
        with self.bucket.errors(f"deleting {key}"):
            return version_of(self.bucket.client.delete_object(**self.bucket.where(key), **which))

    def _lock_settings(self) -> None:
        with self._trying("lock_enabled"), self.bucket.errors("reading the bucket's object lock"):
            answer: Any = self.bucket.client.get_object_lock_configuration(Bucket=self.bucket.options.bucket)
            settings = answer.get("ObjectLockConfiguration", {})
            self.found["lock_enabled"] = settings.get("ObjectLockEnabled") == "Enabled"
            default = settings.get("Rule", {}).get("DefaultRetention", {})
            if default:
                length = f"{default['Days']} days" if default.get("Days") else f"{default.get('Years')} years"
                self.found["lock_default"] = f"{str(default.get('Mode', '')).lower()} for {length}"

    def _try_a_lock(self) -> None:
        key = PROBE_PREFIX + secrets.token_hex(8)
        until = (self.bucket.clock.now() + 2 * LOCKED_FOR).replace(microsecond=0)
        mode = (self.bucket.options.lock.mode if self.bucket.options.lock else "governance").upper()
        with self._trying("lock_holds"):
            version = self.bucket.put(key, b"locked", mark="probe", absent=True, storage_class=False)
            retention: Any = {"Mode": mode, "RetainUntilDate": until}
            with self.bucket.errors("locking the probe object"):
                self.bucket.client.put_object_retention(**self.bucket.where(key), Retention=retention)
            self.found["lock_holds"] = self._is_refused(key, version)
            if mode == "GOVERNANCE":
                self.found["lock_bypassed"] = not self._is_refused(key, version, BypassGovernanceRetention=True)
            self._delete(key)  # hide it

    def _is_refused(self, key: str, version: str | None, **how: Any) -> bool:
        """Whether the object is there after an attempt to remove it for good: what the server answers is not proof."""
        try:
            self._delete(key, VersionId=version, **how)
        except StoreDenied:
            pass
        except StoreError as exc:
            if status_of(exc) not in _UNKNOWN_HERE:
                raise
        try:
            with self.bucket.errors("reading the locked probe object"):
                return self.bucket.get(key, VersionId=version)["Body"].read() == b"locked"
        except StoreError as exc:
            if status_of(exc) not in {0, 404}:
                raise
            return False

    def _lifecycle(self) -> None:
        with self._trying("lifecycle"), self.bucket.errors("reading the bucket's lifecycle"):
            answer: Any = self.bucket.client.get_bucket_lifecycle_configuration(Bucket=self.bucket.options.bucket)
            self.found["lifecycle"] = tuple(_rules(answer.get("Rules", ())))

    @contextmanager
    def _trying(self, what: str) -> Iterator[None]:
        """A refusal is a finding, and so is a server that does not know the request; whatever else ends it."""
        try:
            yield
        except StoreDenied as exc:
            self.trouble[what] = str(exc)
            if what not in {"lifecycle", "lock_enabled", "lock_holds"}:
                self.found[what] = False
        except StoreError as exc:
            if code_of(exc) in _NOTHING_SET:
                self.found[what] = () if what == "lifecycle" else False
            elif status_of(exc) in _UNKNOWN_HERE:
                self.trouble[what] = str(exc)
            else:
                raise


def _rules(rules: Any) -> Iterator[Rule]:
    for number, rule in enumerate(rules, 1):
        if rule.get("Status") != "Enabled":
            continue
        condition = rule.get("Filter") or {}
        both = condition.get("And") or condition
        moves = [*rule.get("Transitions", ())]
        expiration = rule.get("Expiration") or {}
        yield Rule(
            name=str(rule.get("ID") or f"number {number}"),
            prefix=str(rule.get("Prefix") or both.get("Prefix") or ""),
            narrowed=bool(set(both) - {"Prefix"}),
            expires_days=expiration.get("Days"),
            expires_on=expiration.get("Date"),
            old_versions_days=(rule.get("NoncurrentVersionExpiration") or {}).get("NoncurrentDays"),
            aborts_days=(rule.get("AbortIncompleteMultipartUpload") or {}).get("DaysAfterInitiation"),
            moves_to=tuple(str(move.get("StorageClass")) for move in moves),
        )
