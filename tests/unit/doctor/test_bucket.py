"""What the facts of a bucket mean."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from backupd.doctor import Level, Result
from backupd.doctor.bucket import judge
from backupd.facts import BucketFacts, Rule
from backupd.settings import S3StoreSettings
from backupd.settings.stores import ObjectLockSettings

FACTS = BucketFacts(
    bucket="backups",
    endpoint="https://s3.example.org",
    prefix="prod/",
    encrypted_connection=True,
    checksums="sent",
    skew_seconds=0.0,
    lists=True,
    reads=True,
    writes=True,
    conditional=True,
    overwrites=True,
    deletes=True,
    versioned=False,
    lock_enabled=False,
    lifecycle=(),
)
LOCKED = replace(FACTS, versioned=True, removes_versions=True, lock_enabled=True, lock_holds=True, lock_bypassed=False)
LOCK = ObjectLockSettings(mode="compliance", duration=timedelta(days=30))


def judged(facts: BucketFacts, **settings: Any) -> list[Result]:
    return list(judge("offsite", facts, S3StoreSettings(type="s3", bucket="backups", **settings)))


def texts(results: list[Result], *levels: Level) -> str:
    return "\n".join(f"{result.text} -> {result.advice}" for result in results if result.level in levels)


def test_a_plain_bucket_works_and_can_be_destroyed() -> None:
    found = judged(FACTS)
    assert texts(found, "error", "warning") == ""
    notes = texts(found, "note")
    assert "who has these credentials can destroy what is stored" in notes
    assert "keeps no old versions" in notes


def test_a_lock_that_holds() -> None:
    found = judged(LOCKED, object_lock=LOCK, purge_versions=True)
    assert texts(found, "error", "warning") == ""
    fine = texts(found, "ok")
    assert "object lock holds (tried): compliance, for 30d at least" in fine
    assert "cannot destroy what is stored until its locks end" in fine


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lock_holds": False}, "a locked probe object could be removed (tried)"),
        ({"lock_holds": None, "trouble": {"lock_holds": "AccessDenied"}}, "could not be locked: AccessDenied"),
        ({"versioned": False, "lock_holds": None}, "keeps no versions, which a lock needs"),
        ({"lock_bypassed": True}, "these credentials can lift the lock (tried)"),
    ],
)
def test_a_configured_lock_that_does_not_hold_is_an_error(changes: dict[str, Any], said: str) -> None:
    found = judged(replace(LOCKED, **changes), object_lock=LOCK)
    assert said in texts(found, "error")
    assert "can destroy what is stored" in texts(found, "note")


def test_a_lock_that_is_there_and_not_used() -> None:
    assert "not told to use it" in texts(judged(LOCKED), "note")
    assert "can destroy" in texts(judged(LOCKED), "note")
    by_itself = judged(replace(LOCKED, lock_default="compliance for 30 days"))
    assert "cannot destroy" in texts(by_itself, "ok")


@pytest.mark.parametrize(
    "changes",
    [{"deletes": False, "overwrites": False}, {"versioned": True, "removes_versions": False}],
)
def test_credentials_that_cannot_destroy(changes: dict[str, Any]) -> None:
    found = judged(replace(FACTS, **changes), purge_versions=True)
    assert "who has these credentials cannot destroy what is stored" in texts(found, "ok")


def test_deleting_denied_alone_does_not_protect_from_writing_over() -> None:
    found = judged(replace(FACTS, deletes=False))
    assert "prune can remove nothing here" in texts(found, "note")
    assert "can destroy what is stored" in texts(found, "note")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lists": False, "trouble": {"lists": "AccessDenied"}}, "cannot list: AccessDenied -> allow s3:ListBucket"),
        ({"writes": False}, "cannot write: denied -> allow s3:PutObject"),
        ({"reads": False}, "cannot read: denied -> allow s3:GetObject"),
    ],
)
def test_rights_that_are_missing(changes: dict[str, Any], said: str) -> None:
    assert texts(judged(replace(FACTS, **changes)), "error") == said


def test_nothing_is_said_of_what_could_not_be_tried() -> None:
    found = judged(replace(FACTS, writes=False, reads=None, conditional=None, overwrites=None, deletes=None))
    assert "tried" not in texts(found, "ok", "note", "warning", "error")


@pytest.mark.parametrize(
    ("changes", "level", "said"),
    [
        ({"conditional": False}, "warning", "If-None-Match is not heeded"),
        ({"encrypted_connection": False}, "warning", "not encrypted"),
        ({"skew_seconds": 45.0}, "warning", "45 s ahead of ours"),
        ({"skew_seconds": -900.0}, "error", "900 s behind ours"),
        ({"lifecycle": None}, "note", "lifecycle rules are not known"),
        ({"versioned": True}, "warning", "nothing removes old versions"),
    ],
)
def test_other_findings(changes: dict[str, Any], level: Level, said: str) -> None:
    assert said in texts(judged(replace(FACTS, **changes)), level)


def rule(prefix: str = "", **what: Any) -> Rule:
    return Rule(what.pop("name", "r"), prefix, what.pop("narrowed", False), **what)


@pytest.mark.parametrize(
    ("found", "level", "said"),
    [
        (rule(expires_days=30), "error", "r deletes archives 30 days after they were written"),
        (rule("prod/archives/", expires_days=30), "error", "deletes archives"),
        (rule("pr", expires_days=30), "error", "deletes archives"),
        (rule(expires_on=datetime(2027, 1, 1, tzinfo=UTC)), "error", "deletes archives on 2027-01-01"),
        (rule(moves_to=("GLACIER",)), "error", "moves archives to GLACIER"),
        (rule(aborts_days=1), "warning", "aborts uploads after 1 day"),
    ],
)
def test_rules_that_do_harm(found: Rule, level: Level, said: str) -> None:
    assert said in texts(judged(replace(FACTS, lifecycle=(found,))), level)


@pytest.mark.parametrize(
    "found",
    [
        rule("staging/", expires_days=30),
        rule("prod/leases/", expires_days=1),
        rule(moves_to=("STANDARD_IA",)),
        rule(aborts_days=7),
    ],
)
def test_rules_that_do_none(found: Rule) -> None:
    assert texts(judged(replace(FACTS, lifecycle=(found,))), "warning", "error") == ""


def test_a_rule_for_old_versions_is_what_a_bucket_with_versions_needs() -> None:
    versioned = replace(FACTS, versioned=True, removes_versions=False)
    good = judged(replace(versioned, lifecycle=(rule(old_versions_days=30),)))
    assert "old versions go after 30 days" in texts(good, "ok")
    assert texts(good, "warning") == ""
    narrowed = judged(replace(versioned, lifecycle=(rule(old_versions_days=30, narrowed=True),)))
    assert "nothing removes old versions" in texts(narrowed, "warning")
