"""The operation as a whole, on directories, with services that are made up."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from backupd.drill.operation import DrillRequest, drill
from backupd.drill.options import Check, DrillOptions
from backupd.errors import EngineUnavailable, SnapshotNotFound, SourceError
from backupd.journal import DrillAct, Journal
from backupd.lock import drill_lock
from backupd.recover import recover
from backupd.repository import DrillRecord, Manifest, Repository, keep_drill, last_drills
from backupd.sandbox import Condition, drill_directory
from backupd.services import Service
from tests.support.runtime import BEGIN, Place, fill, make_runtime, put
from tests.unit.drill.fakes import FakeEngine, FakeServices, mount, service


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path, names=("data", "other"))
    for name in place.names:
        fill(place.root(name))
    return place


def conduct(
    place: Place,
    manifest: Manifest,
    services: Sequence[Service] = (),
    options: DrillOptions | None = None,
    volumes: tuple[str, ...] = (),
    **sandbox: Any,
) -> tuple[DrillRecord, FakeEngine]:
    engine = FakeEngine(FakeServices(used=services), **sandbox)
    runtime = make_runtime(place.base / "state", engine, place.clock)
    request = DrillRequest(volumes, place.spec, lambda _name: options or DrillOptions(steady_seconds=0))
    record = drill(request, manifest, place.repository(), runtime)
    assert not drill_directory(runtime.state, record.id).exists()
    assert Journal(runtime.state).open_acts() == []
    assert [made.closed for made in engine.sandboxes] == [1]
    return record, engine


def app(place: Place, name: str = "app", volume: str = "data", **rest: Any) -> Service:
    return service(name, "own/app", mounts=(mount(place.root(volume)),), **rest)


def texts(record: DrillRecord, volume: str, verdict: str) -> list[str]:
    seen = record.volume(volume)
    assert seen is not None
    return [finding.text for finding in seen.findings if finding.verdict == verdict]


def test_files_alone_are_no_proof(place: Place) -> None:
    database = sqlite3.connect(place.root() / "app.db")
    database.execute("create table t (x)")
    database.close()
    manifest = place.backup().manifest
    request = DrillRequest((), place.spec, lambda _name: DrillOptions())

    record = drill(request, manifest, place.repository(), place.runtime)

    assert (record.outcome, record.good, record.missing) == ("files", True, [])
    assert any("no service was started on it: the mounted engine" in text for text in texts(record, "data", "skipped"))
    assert any(text.startswith("app.db: integrity_check ok") for text in texts(record, "data", "proven"))
    assert record.age_seconds > 0
    assert not (place.base / "state" / "drills").exists() or not list((place.base / "state" / "drills").iterdir())


def test_services_are_started_in_order(place: Place) -> None:
    manifest = place.backup().manifest
    web = app(place, "web", depends_on=("db",))
    db = app(place, "db", "other")
    reader = service("reader", "own/app", mounts=(mount(place.root(), writable=False),))
    stopped = app(place, "migration", state="exited")
    record, engine = conduct(place, manifest, [web, reader, stopped, db])
    (sandbox,) = engine.sandboxes
    assert sandbox.started == ["db", "web"]
    assert [sorted(spec.volumes) for spec in sandbox.copied] == [
        sorted(str(place.root(name)) for name in place.names)
    ] * 2
    assert record.outcome == "proven"
    seen = record.volume("data")
    assert seen is not None
    assert [(used.name, used.notes) for used in seen.services] == [("web", ["read-only"])]
    assert seen.recovery_seconds >= seen.restore_seconds > 0


def test_a_stack_that_is_down_is_drilled_as_well(place: Place) -> None:
    manifest = place.backup().manifest
    _, engine = conduct(place, manifest, [app(place, state="exited")])
    assert engine.sandboxes[0].started == ["app"]


def test_only_the_services_of_the_configuration(place: Place) -> None:
    manifest = place.backup().manifest
    services = [app(place, "one"), app(place, "two")]
    _, engine = conduct(place, manifest, services, DrillOptions(services=("two",), steady_seconds=0))
    assert engine.sandboxes[0].started == ["two"]
    record, engine = conduct(place, manifest, services, DrillOptions(start=False))
    assert engine.sandboxes[0].started == []
    assert record.outcome == "files"


@pytest.mark.parametrize(
    ("conditions", "text"),
    [
        ([Condition("starting"), Condition("unhealthy")], "is unhealthy after"),
        ([Condition("gone", 3)], "(code 3)"),
        ([Condition("gone", 137, out_of_memory=True)], "out of memory: drill.memory_limit"),
        ([Condition("starting")] * 3, "is starting after"),
        ([Condition("healthy"), Condition("gone", 1)], "broke down while it was asked"),
    ],
)
def test_services_that_do_not_come_up(place: Place, conditions: list[Condition], text: str) -> None:
    manifest = place.backup().manifest
    options = DrillOptions(ready_seconds=0.5)
    record, _ = conduct(place, manifest, [app(place)], options, conditions={"app": conditions}, lines=["said"])
    assert record.outcome == "failed"
    assert any(text in found for found in texts(record, "data", "failed"))
    assert not record.good


def test_an_image_that_is_gone(place: Place) -> None:
    manifest = place.backup().manifest
    gone = service("app", "gone", mounts=(mount(place.root()),))
    record, _ = conduct(place, manifest, [gone])
    assert any("no such image" in text for text in texts(record, "data", "failed"))


def test_what_a_service_complains_of_is_told(place: Place) -> None:
    manifest = place.backup().manifest
    lines = [
        "FATAL:  the database system is starting up",
        "ready",
        "WARNING: Short read or OOM loading DB hunter2",
        "error again",
    ]
    db = app(place, environment={"PASSWORD": "hunter2"})
    record, _ = conduct(place, manifest, [db], lines=lines)
    (text,) = texts(record, "data", "warning")
    assert text == "its log says: WARNING: Short read or OOM loading DB ******** (and 1 more)"
    assert record.outcome == "proven"


def test_damage_in_the_repository_is_found_and_the_rest_drilled(place: Place) -> None:
    manifest = place.backup().manifest
    store = place.stores[0]
    (ref,) = next(archive for archive in manifest.archives if archive.volume == "data").needs
    data = bytearray(store.read(ref.key))
    data[len(data) // 2] ^= 0xFF
    put(store, ref.key, bytes(data))
    record, engine = conduct(place, manifest, [app(place), app(place, "db", "other")])
    assert [(volume.volume, volume.outcome) for volume in record.volumes] == [("data", "failed"), ("other", "proven")]
    assert engine.sandboxes[0].started == ["db"]
    assert [finding.damage for _, finding in record.failures] == [True]


def test_what_has_shrunk_is_told(place: Place) -> None:
    (place.root() / "big").write_bytes(bytes(range(256)) * 4096)
    first = place.backup().manifest
    record, _ = conduct(place, first)
    keep_drill(place.repository(), record, place.base / "state")
    (place.root() / "big").unlink()
    record, _ = conduct(place, place.backup().manifest)
    assert any(text.startswith("bytes: ") for text in texts(record, "data", "warning"))
    assert texts(record, "other", "warning") == []
    assert "nothing has shrunk much since the drill before" in texts(record, "other", "proven")


def test_what_was_not_run_is_told(place: Place) -> None:
    manifest = place.backup().manifest
    checks = (Check(("one",)), Check(("two",), service="nobody"))
    record, _ = conduct(place, manifest, [app(place)], DrillOptions(checks=checks, steady_seconds=0))
    assert texts(record, "data", "proven")[-1] == "`one` is as expected"
    assert texts(record, "data", "skipped") == ["`two` was not run: there was no copy to run it in"]
    assert len([text for text in texts(record, "other", "skipped") if "was not run" in text]) == 2


def test_services_that_the_configuration_names_have_to_be_there(place: Place) -> None:
    manifest = place.backup().manifest
    record, _ = conduct(place, manifest, [app(place)], DrillOptions(services=("typo",)))
    assert any("no container of typo uses" in text for text in texts(record, "data", "failed"))


def test_a_service_that_mounts_a_directory_above(place: Place) -> None:
    manifest = place.backup().manifest
    engine_services = FakeServices()
    above = service("files", "own/app", mounts=(mount(place.root().parent),))
    engine_services.users = lambda volume: [above]  # type: ignore[method-assign]
    engine = FakeEngine(engine_services)
    request = DrillRequest((), place.spec, lambda _name: DrillOptions())
    record = drill(request, manifest, place.repository(), make_runtime(place.base / "state", engine, place.clock))
    assert any("files mount a directory above or below" in text for text in texts(record, "data", "skipped"))


def test_parts_of_a_snapshot(place: Place) -> None:
    manifest = place.backup().manifest
    record, _ = conduct(place, manifest, volumes=("other",))
    assert (record.missing, record.good) == (["data"], False)
    with pytest.raises(SnapshotNotFound, match="holds no volume nothing"):
        conduct(place, manifest, volumes=("nothing",))


def test_an_engine_that_goes_away_is_an_error_and_all_is_removed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = place.backup().manifest
    engine = FakeEngine(FakeServices(used=[app(place)]))
    runtime = make_runtime(place.base / "state", engine, place.clock)

    def unavailable(*_: object) -> None:
        raise EngineUnavailable("it does not answer")

    monkeypatch.setattr("tests.unit.drill.fakes.FakeSandbox.start", unavailable)
    request = DrillRequest((), place.spec, lambda _name: DrillOptions())
    with pytest.raises(EngineUnavailable):
        drill(request, manifest, place.repository(), runtime)
    assert engine.sandboxes[0].closed == 1
    assert Journal(runtime.state).open_acts() == []
    assert not list((runtime.state / "drills").glob("*"))


def test_too_little_room(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    from backupd.restore.swap import Survey, Swap  # noqa: PLC0415

    manifest = place.backup().manifest
    size = sum(archive.plain_size for archive in manifest.archives)
    monkeypatch.setattr(Swap, "survey", lambda _self: Survey(True, size, "one", ()))
    with pytest.raises(SourceError, match="MiB are free, and the drill needs"):
        conduct(place, manifest)


class TestAfterAKill:
    def left(self, place: Place, engine: str = "mounted") -> Path:
        state = place.runtime.state
        Journal(state).begin(DrillAct(drill="20260101T000000Z-x", engine=engine), BEGIN)
        directory = drill_directory(state, "20260101T000000Z-x")
        (directory / "data" / "closed").mkdir(parents=True)
        (directory / "data" / "closed" / "file").touch()
        (directory / "data" / "closed").chmod(0)
        return directory

    def test_what_is_left_is_removed(self, place: Place) -> None:
        directory = self.left(place)
        (recovery,) = recover(place.runtime)
        assert recovery.subject == "drill 20260101T000000Z-x"
        assert not directory.exists()
        assert recover(place.runtime) == []

    def test_a_living_drill_is_left_alone(self, place: Place) -> None:
        directory = self.left(place)
        with drill_lock(place.runtime.locks, "20260101T000000Z-x"):
            assert recover(place.runtime) == []
        assert directory.exists()

    def test_a_drill_of_another_engine_waits_for_it(self, place: Place) -> None:
        directory = self.left(place, "docker")
        assert recover(place.runtime) == []
        assert directory.exists()


def test_records(place: Place) -> None:
    manifest = place.backup().manifest
    repository: Repository = place.repository()
    record, _ = conduct(place, manifest)
    keep: Callable[[], str | None] = lambda: keep_drill(repository, record, place.base / "state")  # noqa: E731
    assert keep() is None
    assert last_drills(repository).records == {manifest.id: record}
