"""What a bucket's facts mean for backups. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from backupd.doctor.machine import skew
from backupd.doctor.result import Result
from backupd.facts import BucketFacts, Rule
from backupd.settings import S3StoreSettings
from backupd.settings.types import format_duration

_PAGE = "docs/immutability.md"
_SLOW = {"GLACIER", "DEEP_ARCHIVE", "ARCHIVE"}
_HARMLESS = ("leases/", "probe/", "drills/")
_SHORTEST_UPLOAD_DAYS = 2


def judge(store: str, facts: BucketFacts, settings: S3StoreSettings) -> Iterator[Result]:
    """All of it, the most basic first."""
    subject = f"store {store}"
    yield Result("ok", subject, f"bucket {facts.bucket} at {facts.endpoint} answers")
    if not facts.encrypted_connection:
        yield Result("warning", subject, "the connection is not encrypted", "use https:// in endpoint_url")
    if facts.skew_seconds is not None:
        yield skew(f"{subject} clock", timedelta(seconds=facts.skew_seconds))
    yield from _rights(subject, facts)
    if facts.writes:
        yield from _immutability(subject, facts, settings)
    yield from _lifecycle(subject, facts, settings)


def _rights(subject: str, facts: BucketFacts) -> Iterator[Result]:
    rights = (
        ("list", "lists", facts.lists, "s3:ListBucket"),
        ("write", "writes", facts.writes, "s3:PutObject"),
        ("read", "reads", facts.reads if facts.writes else True, "s3:GetObject"),
    )
    for act, field, allowed, action in rights:
        if not allowed:
            yield Result("error", subject, f"cannot {act}: {facts.trouble.get(field, 'denied')}", f"allow {action}")
    if facts.lists and facts.reads and facts.writes:
        yield Result("ok", subject, f"a probe object was written, read and listed; checksums are {facts.checksums}")
    if facts.conditional:
        yield Result("ok", subject, "creates only what is absent (If-None-Match)")
    elif facts.writes:
        text = "If-None-Match is not heeded: two that write the same name at one moment can't be told apart"
        yield Result("warning", subject, text, "let only one machine write to it at a time")


def _immutability(subject: str, facts: BucketFacts, settings: S3StoreSettings) -> Iterator[Result]:
    """By what was tried: each protection, and what remains for somebody who has these credentials."""
    yield Result("ok" if facts.overwrites is False else "note", subject, _can("write over objects", facts.overwrites))
    yield Result("ok" if facts.deletes is False else "note", subject, _can("delete objects", facts.deletes))
    if facts.deletes is False:
        text = "prune can remove nothing here: it says what it left"
        yield Result("note", subject, text, f"prune with other credentials, or by a lifecycle rule: {_PAGE}")
    if facts.versioned:
        yield Result("ok", subject, "keeps old versions: what is deleted or written over is still there")
        safe = facts.removes_versions is False
        yield Result("ok" if safe else "note", subject, _can("remove old versions for good", facts.removes_versions))
    else:
        yield Result("note", subject, "keeps no old versions: what is deleted or written over is gone")
    yield from _lock(subject, facts, settings)
    yield _verdict(subject, facts, settings)


def _can(act: str, allowed: bool | None) -> str:
    if allowed is None:
        return f"whether these credentials can {act} could not be found out"
    return f"these credentials {'can' if allowed else 'cannot'} {act} (tried)"


def _lock(subject: str, facts: BucketFacts, settings: S3StoreSettings) -> Iterator[Result]:
    wanted = settings.object_lock
    if wanted is None:
        if facts.lock_default:
            yield Result("ok", subject, f"locks every new object by itself: {facts.lock_default}")
        elif facts.lock_enabled:
            advice = "set stores.NAME.object_lock: {mode: compliance, duration: 30d}"
            yield Result("note", subject, "the bucket has object lock, and backupd is not told to use it", advice)
        return
    if facts.lock_holds:
        text = f"object lock holds (tried): {wanted.mode}, for {format_duration(wanted.duration)} at least"
        yield Result("ok", subject, text)
        if facts.lock_bypassed:
            advice = "take s3:BypassGovernanceRetention from them, or choose `mode: compliance`"
            yield Result("error", subject, "these credentials can lift the lock (tried)", advice)
        return
    if not facts.versioned:
        text = "object_lock is configured, and the bucket keeps no versions, which a lock needs"
    elif why := facts.trouble.get("lock_holds"):
        text = f"object_lock is configured, and a probe could not be locked: {why}"
    else:
        text = "object_lock is configured, and a locked probe object could be removed (tried)"
    yield Result("error", subject, text, f"make a bucket with object lock: {_PAGE}")


def _verdict(subject: str, facts: BucketFacts, settings: S3StoreSettings) -> Result:
    """What somebody with these credentials can do to what is stored."""
    locked = facts.lock_holds and not facts.lock_bypassed and (settings.object_lock or facts.lock_default)
    if locked:
        return Result("ok", subject, "who has these credentials cannot destroy what is stored until its locks end")
    safe = facts.removes_versions is False if facts.versioned else facts.deletes is False and facts.overwrites is False
    if safe:
        return Result("ok", subject, "who has these credentials cannot destroy what is stored")
    return Result(
        "note", subject, "who has these credentials can destroy what is stored", f"how to prevent that: {_PAGE}"
    )


def _lifecycle(subject: str, facts: BucketFacts, settings: S3StoreSettings) -> Iterator[Result]:
    rules = [rule for rule in facts.lifecycle or () if _applies(rule, facts.prefix)]
    for rule in rules:
        name = f"lifecycle rule {rule.name}"
        if rule.expires_days or rule.expires_on:
            when = f"{rule.expires_days} days after they were written" if rule.expires_days else f"on {rule.expires_on}"
            text = f"{name} deletes archives {when}, also those that newer snapshots need"
            yield Result(
                "error", subject, text, "take the rule away: `backupd prune` deletes what `keep` does not want"
            )
        if slow := [target for target in rule.moves_to if target in _SLOW]:
            text = f"{name} moves archives to {slow[0]}, from where they can't be read at once"
            yield Result("error", subject, text, "take the transition away, or move to a class that is read at once")
        if rule.aborts_days is not None and rule.aborts_days < _SHORTEST_UPLOAD_DAYS:
            text = f"{name} aborts uploads after {rule.aborts_days} day: a first backup may take longer"
            yield Result("warning", subject, text, "set DaysAfterInitiation to 7")
    if facts.lifecycle is None:
        yield Result("note", subject, f"its lifecycle rules are not known: {facts.trouble.get('lifecycle', 'denied')}")
        return
    if facts.versioned:
        yield _old_versions(subject, rules, settings)
    if not any(rule.aborts_days for rule in rules):
        yield Result("note", subject, "no rule aborts old unfinished uploads; backupd removes its own after a day")


def _old_versions(subject: str, rules: list[Rule], settings: S3StoreSettings) -> Result:
    if days := [rule.old_versions_days for rule in rules if rule.old_versions_days and not rule.narrowed]:
        return Result("ok", subject, f"old versions go after {min(days)} days by a lifecycle rule")
    if settings.purge_versions:
        return Result("ok", subject, "old versions are removed by `backupd prune` (purge_versions)")
    advice = f"a rule with NoncurrentVersionExpiration, or purge_versions: {_PAGE}"
    return Result("warning", subject, "nothing removes old versions: what prune deletes is paid for for ever", advice)


def _applies(rule: Rule, prefix: str) -> bool:
    """Whether a rule may be about archives, manifests or the repository's own documents. Objects carry no tags."""
    if rule.prefix.startswith(tuple(f"{prefix}{harmless}" for harmless in _HARMLESS)):
        return False
    return rule.prefix.startswith(prefix) or prefix.startswith(rule.prefix)
