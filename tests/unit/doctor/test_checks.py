"""The doctor on deployments in directories: what it finds, and that nothing ends it."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from msgspec.structs import replace

from backupd.doctor import Check, Finding, Level, Patient, Result, all_checks, examine
from backupd.doctor.machine import look_at_keys, look_at_state, room, skew
from backupd.errors import SourceError, StoreUnavailable
from backupd.history import History, Outcome, Run, RunKind
from backupd.ports import Store
from backupd.repository import layout
from backupd.settings import Settings, load_settings
from backupd.stores.memory import MemoryStore
from backupd.verify.recording import Look, keep_findings
from backupd.verify.verifier import Finding as Damage
from tests.support.faulty_store import FaultyStore
from tests.support.runtime import Place

CONFIGURATION: dict[str, Any] = {
    "engine": "mounted",
    "stores": {"local": {"type": "local", "path": "./store"}},
    "volumes": {"data": {"path": "./volumes/data"}},
    "plans": {
        "nightly": {
            "volumes": ["data"],
            "stores": ["local"],
            "schedule": "0 2 * * *",
            "timezone": "UTC",
            "keep": {"daily": 7},
            "drill": {"schedule": "@monthly"},
        }
    },
}


def configured(base: Path, **changes: Any) -> Settings:
    (base / "backupd.yaml").write_text(yaml.safe_dump({**CONFIGURATION, "state_dir": str(base / "state"), **changes}))
    return load_settings(base / "backupd.yaml", {})


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    place.root().mkdir(parents=True)
    (place.root() / "file").write_bytes(random.Random(1).randbytes(100_000))
    return place


def findings(place: Place, asked: list[Store] | None = None, **changes: Any) -> list[Finding]:
    patient = Patient(configured(place.base, **changes), place.runtime, place.stores if asked is None else asked)
    return list(examine(all_checks(patient)))


def said(found: list[Finding], *levels: Level) -> list[str]:
    return [f"{one.result.subject}: {one.result.text}" for one in found if one.result.level in levels]


def test_a_crash_of_a_check_is_a_result_and_ends_no_other() -> None:
    def refused() -> Iterator[Result]:
        yield Result("ok", "a", "first")
        raise SourceError("b: no", hint="do this")

    def mistaken() -> Iterator[Result]:
        raise ZeroDivisionError("oh")

    def denied() -> Iterator[Result]:
        raise PermissionError(13, "Permission denied", "/x")

    runs: list[Callable[[], Iterator[Result]]] = [refused, mistaken, denied, lambda: iter([Result("ok", "z", "last")])]
    results = [found.result for found in examine(Check("area", "b", run) for run in runs)]
    assert [result.level for result in results] == ["ok", "error", "error", "error", "ok"]
    assert results[1] == Result("error", "b", "no", "do this")
    assert "ZeroDivisionError: oh" in results[2].text
    assert results[3].text == "Permission denied: /x"


def test_a_deployment_that_is_well(place: Place) -> None:
    place.backup()
    found = findings(place)
    assert said(found, "error") == []
    assert said(found, "warning") == [
        "plan nightly: its snapshots are in local only: what takes this machine takes them",
        "prune: has no schedule: what nightly no longer keeps stays until somebody prunes",
    ]
    assert any("repository" in text and "1 snapshot, the newest of" in text for text in said(found, "ok"))
    assert "volume data: is read by auto: no container is known to use it" in said(found, "ok")


def test_what_the_configuration_leaves_out(place: Place) -> None:
    found = findings(
        place,
        volumes={"data": {"path": "./volumes/data"}, "unused": {"path": "./volumes/data"}},
        stores={**CONFIGURATION["stores"], "spare": {"type": "local", "path": "./spare"},
                "away": {"type": "s3", "bucket": "bbb"}},
        plans={"a": {"volumes": ["data"], "stores": ["away"]}},
    )  # fmt: skip
    warnings = said(found, "warning")
    assert "plan a: has no schedule: it runs by hand only" in warnings
    assert "plan a: keeps every snapshot for ever in away" in warnings
    assert "store local: is in no plan: nothing is written to it" in warnings
    assert "store spare: is in no plan: nothing is written to it" in warnings
    assert "volume unused: is in no plan: it is not backed up" in warnings
    assert "encryption: is off: who can read away can read all data" in warnings


def test_volumes_that_are_missing(place: Place) -> None:
    volumes = {
        "data": {"path": "./volumes/data"},
        "gone": {"path": "./volumes/gone"},
        "maybe": {"path": "./volumes/maybe", "optional": True},
        "database": {"path": "./volumes/data", "consistency": "postgres"},
    }
    found = findings(place, volumes=volumes)
    errors = said(found, "error")
    assert any(text.startswith("volume gone: ") for text in errors)
    assert not any(text.startswith("volume maybe: ") for text in errors)
    assert any(text.startswith("volume maybe: is optional, and not there") for text in said(found, "note"))
    assert any("database: is read by postgres" in text and "That fails" in text for text in errors)


def test_commands_in_containers_that_are_not_there(place: Place) -> None:
    hook = {"service": "app", "command": "true"}
    found = findings(place, volumes={"data": {"path": "./volumes/data", "pre": [hook]}})
    assert "volume data: container app, which its commands run in, is not there" in said(found, "error")


@pytest.mark.parametrize(
    ("late", "level", "word"), [(timedelta(), "ok", "newest"), (timedelta(1), "warning", "is missing"),
                                (timedelta(3), "error", "two runs or more")]
)  # fmt: skip
def test_snapshots_that_do_not_come(place: Place, late: timedelta, level: Level, word: str) -> None:
    place.backup()
    place.clock.time += timedelta(hours=4) + late
    (text,) = [text for text in said(findings(place), level) if text.startswith("plan nightly in local")]
    assert word in text


def test_a_run_that_may_come_late_is_not_missing_yet(place: Place) -> None:
    place.backup()
    place.clock.time += timedelta(days=1, hours=4)
    plan = {**CONFIGURATION["plans"]["nightly"], "jitter": "5h"}
    found = findings(place, plans={"nightly": plan})
    assert [text for text in said(found, "ok") if text.startswith("plan nightly in local: the newest")]


def test_a_success_that_is_too_old_and_what_went_wrong_last(place: Place) -> None:
    plan = {**CONFIGURATION["plans"]["nightly"], "max_age": "26h", "verify": {"schedule": "0 4 * * *"}}
    changes: dict[str, Any] = {"plans": {"nightly": plan}, "prune": {"schedule": "@daily"}}
    assert "plan nightly: has never succeeded" in said(findings(place, **changes), "warning")
    place.backup()
    found = findings(place, **changes)
    assert any(text.startswith("plan nightly: last succeeded ") for text in said(found, "ok"))
    assert "verify of nightly: has a schedule, and has not been done yet here" in said(found, "note")
    place.clock.time += timedelta(hours=27)
    (text,) = [text for text in said(findings(place, **changes), "error") if text.startswith("plan nightly: last")]
    assert "its max_age is 26 h 0 min" in text

    history, now = History(place.runtime.state), place.clock.now()
    history.put(Run(id="aa" * 8, kind="backup", plan="nightly", started=now, finished=now, outcome="done"))
    runs: list[tuple[RunKind, str | None, Outcome]] = [
        ("verify", "nightly", "failed"), ("drill", "nightly", "done"), ("prune", None, "failed"),
    ]  # fmt: skip
    for number, (kind, name, outcome) in enumerate(runs):
        broken = None if outcome == "done" else "it is broken"
        history.put(
            Run(id=f"{number:02x}" * 8, kind=kind, plan=name, started=now, finished=now, outcome=outcome, error=broken)
        )
    found = findings(place, **changes)
    assert any(text.startswith("plan nightly: last succeeded ") for text in said(found, "ok"))
    assert [text for text in said(found, "error") if text.endswith("is failed: it is broken")] == [
        f"verify of nightly: the last one, of {now:%Y-%m-%d %H:%M} UTC, is failed: it is broken"
    ]
    assert any(text.startswith("prune: the last one") for text in said(found, "warning"))
    assert any(text.startswith("drill of nightly: went well") for text in said(found, "ok"))


@pytest.mark.parametrize(
    ("schedule", "max_age", "pause", "jitter"),
    [
        ("0 2 * * *", "1d", "24 h 0 min", None),
        ("0 2 * * 1-5", "26h", "72 h 0 min", None),
        ("*/5 9-17 * * *", "2h", "15 h 5 min", None),
        ("@monthly", "30d", "744 h 0 min", None),
        ("0 2 * * *", "26h", None, None),
        ("@monthly", "32d", None, None),
        ("0 2 * * *", "26h", "27 h 0 min", "3h"),
    ],
)
def test_a_max_age_that_is_over_before_the_next_run(
    place: Place, schedule: str, max_age: str, pause: str | None, jitter: str | None
) -> None:
    plan = {**CONFIGURATION["plans"]["nightly"], "schedule": schedule, "max_age": max_age, "jitter": jitter}
    found = [text for text in said(findings(place, plans={"nightly": plan}), "warning") if "max_age" in text]
    assert [text.partition("before the next run: ")[2] for text in found] == (
        [f"{pause} lie between two"] if pause else []
    )


def test_what_nobody_would_notice(place: Place) -> None:
    found = findings(place)
    assert any(text.startswith("prune: has no schedule: what nightly") for text in said(found, "warning"))
    notes = said(found, "note")
    assert "notifications: nobody is told of failures, but by the log and /metrics" in notes
    assert "plan nightly: has no max_age: that it no longer succeeds is no alert" in notes
    assert "plan nightly: is not verified by itself: damage shows when it is restored" in notes
    plan = {**CONFIGURATION["plans"]["nightly"], "max_age": "26h", "verify": {"schedule": "@daily"}}
    target = {"ops": {"url": "json://ops.example.org"}}
    found = findings(place, plans={"nightly": plan}, prune={"schedule": "@daily"}, notifications={"targets": target})
    left = [text for text in said(found, "note", "warning") if "has a schedule" not in text]
    assert not [text for text in left if "prune" in text or "notif" in text or "max_age" in text or "verif" in text]


def test_no_snapshot_yet(place: Place) -> None:
    assert "plan nightly in local: has no snapshot yet" in said(findings(place), "warning")
    place.backup()
    assert not [text for text in said(findings(place), "warning", "note") if text.startswith("plan") and "yet" in text]
    security = replace(place.runtime.security, machine=lambda: "f" * 64)
    place.runtime = replace(place.runtime, security=security)
    (text,) = [text for text in said(findings(place), "warning", "note") if text.startswith("plan") and "yet" in text]
    assert text.startswith("plan nightly in local: has none of the whole plan by this machine yet; the newest of all")


def test_an_incomplete_snapshot_is_an_error(place: Place) -> None:
    place.names = ("data", "other")
    place.backup()
    assert any("lacks other" in text for text in said(findings(place), "error"))


def test_a_store_that_owes_snapshots(place: Place) -> None:
    first, second = MemoryStore("local"), MemoryStore("second")
    place.stores = [first]
    place.backup()
    two = {**CONFIGURATION["stores"], "second": {"type": "local", "path": "./second"}}
    plan = {**CONFIGURATION["plans"]["nightly"], "stores": ["local", "second"]}
    found = findings(place, [first, second], stores=two, plans={"nightly": plan})
    assert any("second: lacks 1 snapshot of plan nightly" in text for text in said(found, "warning"))
    place.stores = [first, second]
    place.backup()
    found = findings(place, [first, second], stores=two, plans={"nightly": plan})
    assert not any("lacks" in text for text in said(found, "warning", "error"))


def test_what_is_owed_in_the_place_of_a_damaged_one(place: Place) -> None:
    """As the next backup sees it: what is damaged takes nobody's place."""
    first, second = MemoryStore("local"), MemoryStore("second")
    place.stores = [first, second]
    taken = [place.backup().manifest for _ in range(2)]
    second.delete(layout.snapshot(taken[0].id))
    two = {**CONFIGURATION["stores"], "second": {"type": "local", "path": "./second"}}
    plan = {**CONFIGURATION["plans"]["nightly"], "stores": ["local", "second"], "keep": {"last": 1}}

    def owed() -> list[str]:
        found = findings(place, [first, second], stores=two, plans={"nightly": plan})
        return [text for text in said(found, "warning") if "lacks" in text]

    assert owed() == []
    spoilt = Damage(taken[1].id, "data", problem="gone")
    keep_findings(place.repository(1), taken[1], [spoilt], Look(place.clock.now(), "sizes"), place.runtime)
    assert [text.partition(" of")[0] for text in owed()] == ["store second: lacks 1 snapshot"]


def test_a_store_that_does_not_answer_is_one_error_and_the_rest_is_looked_at(place: Place) -> None:
    faulty = FaultyStore(MemoryStore("local"))
    faulty.break_down(StoreUnavailable("store local: gone", hint="is it on?"))
    found = findings(place, [faulty])
    (error,) = [one.result for one in found if one.result.level == "error"]
    assert error == Result("error", "store local", "gone", "is it on?")
    assert found[-1].area == "snapshots"


def test_a_damaged_manifest_is_an_error(place: Place) -> None:
    result = place.backup()
    key = f"snapshots/{result.manifest.id}.json"
    place.stores[0].delete(key)
    place.stores[0].put(key, b"{}")
    assert any("store local" in text for text in said(findings(place), "error"))


def test_leases_of_others_are_told(place: Place) -> None:
    place.backup()
    with place.runtime.leases(place.stores[0]).shared("backup of plan weekly"):
        assert any("at work: backup of plan weekly by" in text for text in said(findings(place), "note"))


def test_a_repository_that_is_another_one_is_an_error(place: Place) -> None:
    place.backup()
    place.stores = [MemoryStore("local")]
    other = replace(place.runtime, state=place.base / "other state")
    runtime, place.runtime = place.runtime, other
    place.backup()
    place.runtime = runtime
    assert any("held the repository" in text for text in said(findings(place), "error"))


def test_a_repository_that_is_gone_is_an_error(place: Place) -> None:
    place.backup()
    place.stores = [MemoryStore("local")]
    assert any("now holds none" in text for text in said(findings(place), "error"))


def levels(results: Iterator[Result]) -> list[tuple[Level, str]]:
    return [(result.level, result.text) for result in results]


def test_the_state_directory(tmp_path: Path) -> None:
    state = tmp_path / "state"
    assert levels(look_at_state(state))[0][0] == "note"
    state.mkdir(mode=0o700)
    assert [level for level, _ in levels(look_at_state(state))] in [["ok"], ["warning"]]
    state.chmod(0o777)
    assert "others can write it (mode 777)" in levels(look_at_state(state))[0][1]
    (tmp_path / "file").touch()
    assert levels(look_at_state(tmp_path / "file")) == [("error", "is not a directory")]


def test_room(tmp_path: Path) -> None:
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    assert room("x", tmp_path, free * 2).level == "error"
    assert room("x", tmp_path, free * 3 // 4).level == "warning"


def test_keys(tmp_path: Path) -> None:
    identity = tmp_path / "key"
    assert levels(look_at_keys(tmp_path, identity, encrypted=True)) == [("note", "is made by the first backup")]
    identity.touch()
    assert (
        "the secret key for decryption is on this machine"
        in levels(look_at_keys(tmp_path, identity, encrypted=True))[1][1]
    )


@pytest.mark.parametrize(
    ("ahead", "level"), [(0, "ok"), (29, "ok"), (-29, "ok"), (31, "warning"), (-599, "warning"), (600, "error")]
)
def test_clocks(ahead: int, level: Level) -> None:
    assert skew("clock", timedelta(seconds=ahead)).level == level


@pytest.mark.parametrize("there", [True, False])
def test_jobs_that_nothing_confines(place: Place, monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    monkeypatch.setattr("backupd.doctor.engine.unconfined", lambda: None if there else "jobs are not confined: …")
    notes = [found for found in findings(place) if "not confined" in found.result.text]
    assert [found.result.level for found in notes] == ([] if there else ["note"])
