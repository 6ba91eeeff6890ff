"""Several volumes at one moment."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from backupd import consistency
from backupd.backup import back_up
from backupd.consistency import choosing
from backupd.consistency.held import HeldStrategy
from backupd.errors import SourceError, VolumeMissing
from backupd.journal import Journal
from backupd.lock import volume_lock
from backupd.model import Volume
from backupd.ports import TarOutput
from tests.support.daemon import PATIENCE_SECONDS, wait_until
from tests.support.runtime import Place, fill
from tests.support.services import FakeServices, service


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path, names=("one", "two"), together=True)
    for name in place.names:
        fill(place.root(name))
    return place


@pytest.fixture
def services(place: Place) -> FakeServices:
    place.runtime.engine.services = services = FakeServices()
    both = (str(place.root("one")), str(place.root("two")))
    services.add(service("app", *both, depends_on=("db",)), service("db", both[1]), service("reader", both[0]))
    reader = services.containers["id-reader"]
    services.add(replace(reader, mounts=(replace(reader.mounts[0], writable=False),)))
    return services


def seen(place: Place, services: FakeServices, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, str]]:
    tar_out = place.runtime.engine.tar_out
    found: list[tuple[str, str, str]] = []

    def reading(volume: Volume, exclude: Sequence[str] = (), subdirectory: str = "") -> TarOutput:
        found.append((volume.name, services.containers["id-app"].state, services.containers["id-db"].state))
        return tar_out(volume, exclude, subdirectory)

    monkeypatch.setattr(place.runtime.engine, "tar_out", reading)
    return found


def test_locks_are_taken_in_one_order_so_that_no_two_wait_for_ever(place: Place) -> None:
    first, second = (Volume(name=name, kind="directory", source=str(place.root(name))) for name in ("one", "two"))
    place.names = ("two", "one")
    place.runtime = replace(place.runtime, volume_wait_seconds=PATIENCE_SECONDS)
    with ThreadPoolExecutor(1) as pool:
        with volume_lock(place.runtime.locks, first):
            backup = pool.submit(place.backup)
            wait_until(lambda: any("waiting" in note for note in place.notes), "somebody who waits")
            with volume_lock(place.runtime.locks, second):
                assert not backup.done(), "it waits, and keeps nobody from what comes after"
        assert [archive.volume for archive in backup.result().manifest.archives] == ["two", "one"]


def test_a_directory_under_two_names_does_not_wait_for_itself(place: Place) -> None:
    place.root("two").rename(place.root("gone"))
    place.root("two").symlink_to("one")
    result = place.backup()
    assert [archive.volume for archive in result.manifest.archives] == ["one", "two"]
    assert not result.manifest.failures


def test_all_writers_stand_once(place: Place, services: FakeServices, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = seen(place, services, monkeypatch)
    result = place.backup()
    assert result.complete
    assert passes == [
        ("one", "running", "running"),
        ("two", "running", "running"),
        ("one", "paused", "paused"),
        ("two", "paused", "paused"),
    ]
    assert services.acts == ["pause app", "pause db", "unpause db", "unpause app"]
    manifest = result.manifest
    assert manifest.moment is not None
    assert {archive.moment for archive in manifest.archives} == {manifest.moment}
    assert [sorted(archive.downtime) for archive in manifest.archives] == [["app"], ["app", "db"]]
    assert {archive.consistency for archive in manifest.archives} == {"together"}
    before = place.prints()
    place.restore(manifest, safety_snapshot=False, force=True)
    assert place.prints() == before


def test_all_is_ready_before_anybody_stands(
    place: Place, services: FakeServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready_to_read, happened = place.runtime.engine.ready_to_read, []

    def ready(volume: Volume, exclude: Sequence[str] = ()) -> Any:
        happened.append(f"ready {volume.name}")
        return ready_to_read(volume, exclude)

    services.before = happened.append
    monkeypatch.setattr(place.runtime.engine, "ready_to_read", ready)
    assert place.backup().complete
    assert happened[:4] == ["ready one", "ready two", "pause app", "pause db"]


def test_who_cannot_be_made_ready_fails_alone_when_it_is_read(
    place: Place, services: FakeServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready_to_read = place.runtime.engine.ready_to_read

    def ready(volume: Volume, exclude: Sequence[str] = ()) -> Any:
        if volume.name == "one":
            raise SourceError("no helper to be had")
        return ready_to_read(volume, exclude)

    monkeypatch.setattr(place.runtime.engine, "ready_to_read", ready)
    assert place.backup().complete, "it could be read after all"
    assert services.acts == ["pause app", "pause db", "unpause db", "unpause app"]


def test_who_has_to_be_stopped_is_and_before_the_others_are_paused(
    place: Place, services: FakeServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    def recognises(user: Any, volume: Volume) -> bool:
        return user.name == "db" and volume.name == "two"

    entry = choosing.Entry(
        "redis", lambda spec, volume, users, runtime: HeldStrategy("stop", spec, volume, users, runtime), recognises
    )
    monkeypatch.setattr(choosing, "STRATEGIES", (*consistency.STRATEGIES, entry))
    manifest = place.backup().manifest
    assert services.acts == ["stop app", "stop db", "start db", "start app"]
    assert {archive.moment for archive in manifest.archives} == {manifest.moment}


def test_one_that_is_live_takes_no_part(place: Place, services: FakeServices, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = seen(place, services, monkeypatch)
    specs = [replace(place.spec("one"), consistency="live", said=frozenset({"consistency"})), place.spec("two")]
    manifest = back_up(replace(place.plan, volumes=tuple(specs)), place.runtime, place.stores).manifest
    assert [(name, app) for name, app, _ in passes] == [("two", "running"), ("two", "paused"), ("one", "running")]
    assert [archive.consistency for archive in manifest.archives] == ["together: live", "together"]
    assert [archive.moment is None for archive in manifest.archives] == [True, False]
    assert manifest.moment is None, "it is not of all of them"


def test_nobody_writes(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.runtime.engine.services = services = FakeServices()
    manifest = place.backup().manifest
    assert services.acts == []
    assert manifest.moment is not None


def test_one_that_cannot_be_read_does_not_keep_the_others_from_it(place: Place, services: FakeServices) -> None:
    place.names = ("one", "gone", "two")
    result = place.backup()
    assert not result.complete
    assert [archive.volume for archive in result.manifest.archives] == ["one", "two"]


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_one_that_fails_in_any_pass(
    place: Place, services: FakeServices, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    tar_out, count = place.runtime.engine.tar_out, 0

    def reading(*arguments: Any) -> TarOutput:
        nonlocal count
        count += 1
        if count == number:
            raise SourceError("no helper")
        return tar_out(*arguments)

    monkeypatch.setattr(place.runtime.engine, "tar_out", reading)
    result = place.backup()
    assert [failure.volume for failure in result.manifest.failures] == [("one", "two")[(number - 1) % 2]]
    assert len(result.manifest.archives) == 1
    assert {found.state for found in services.containers.values()} == {"running"}
    assert Journal(place.runtime.state).open_acts() == []


def test_who_cannot_be_held(place: Place, services: FakeServices) -> None:
    services.refusing = {"pause db"}
    with pytest.raises(SourceError, match="cannot pause db"):
        place.backup()
    assert {found.state for found in services.containers.values()} == {"running"}
    assert place.repository().snapshots() == ([], [])


def test_none_of_them(place: Place, services: FakeServices) -> None:
    place.names = ("gone",)
    with pytest.raises(VolumeMissing):
        place.backup()


def test_trouble_afterwards(place: Place, services: FakeServices) -> None:
    services.refusing = {"unpause db"}
    result = place.backup()
    assert not result.complete
    assert result.manifest.all_trouble == ["not all services go on: cannot unpause db"]
