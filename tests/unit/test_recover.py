"""Journal, locks, and what recover makes of them."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
from pathlib import Path

import pytest
from msgspec.structs import replace

from backupd.engine import MountedEngine
from backupd.errors import LockedError, SourceError
from backupd.journal import HoldAct, Journal, RestoreAct
from backupd.lock import service_lock, volume_lock
from backupd.model import Volume
from backupd.recover import recover
from backupd.restore.swap import Swap
from tests.support.runtime import BEGIN, Place, fill
from tests.support.staged_services import FakeServices, a_service
from tools.fingerprint import differences, fingerprint


def volume(source: str = "/v") -> Volume:
    return Volume(name="v", kind="directory", source=source)


def act(source: str = "/v", swap: str = "x-1") -> RestoreAct:
    return RestoreAct(volume=volume(source), swap=swap, keep_old=False)


class TestJournal:
    def test_acts(self, tmp_path: Path) -> None:
        journal = Journal(tmp_path / "state")
        assert journal.open_acts() == []
        assert not (tmp_path / "state").exists()
        first, second = (journal.begin(act(swap=swap), BEGIN) for swap in ("x-1", "x-2"))
        journal.decide([second], forward=True)
        assert [(open_.number, open_.act, open_.decided) for open_ in Journal(tmp_path / "state").open_acts()] == [
            (first, act(swap="x-1"), False),
            (second, act(swap="x-2"), True),
        ]
        journal.decide([first, second], forward=False)
        journal.end([first])
        assert [(open_.act, open_.decided) for open_ in journal.open_acts()] == [(act(swap="x-2"), False)]

    def test_a_journal_that_is_none(self, tmp_path: Path) -> None:
        (tmp_path / "journal.sqlite").write_bytes(b"garbage" * 1000)
        for action in (Journal(tmp_path).open_acts, lambda: Journal(tmp_path).begin(act(), BEGIN)):
            with pytest.raises(SourceError, match="cannot be used") as caught:
                action()
            assert caught.value.hint is not None

    def test_acts_that_are_not_known(self, tmp_path: Path) -> None:
        Journal(tmp_path).begin(act(), BEGIN)
        connection = sqlite3.connect(tmp_path / "journal.sqlite", isolation_level=None)
        connection.execute('UPDATE acts SET act = \'{"type":"later"}\'')
        connection.close()
        with pytest.raises(SourceError, match="cannot be used"):
            Journal(tmp_path).open_acts()

    def test_no_place_for_it(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(SourceError):
            Journal(tmp_path / "file" / "state").begin(act(), BEGIN)


def hold(directory: Path, source: str, held: multiprocessing.synchronize.Event) -> None:
    with volume_lock(directory, volume(source)):
        held.set()
        multiprocessing.Event().wait()


class TestLock:
    def test_one_at_a_time(self, tmp_path: Path) -> None:
        with volume_lock(tmp_path, volume()):
            with pytest.raises(LockedError, match=f"process {os.getpid()}") as caught, volume_lock(tmp_path, volume()):
                pass
            with volume_lock(tmp_path, volume("/other")):
                pass
        assert caught.value.exit_code == 11
        with volume_lock(tmp_path, volume()):
            pass

    def test_another_name_of_the_directory(self, tmp_path: Path) -> None:
        (tmp_path / "v").mkdir()
        (tmp_path / "link").symlink_to("v")
        with (
            volume_lock(tmp_path, volume(f"{tmp_path}/v")),
            pytest.raises(LockedError),
            volume_lock(tmp_path, volume(f"{tmp_path}/link")),
        ):
            pass

    def test_let_go_by_death(self, tmp_path: Path) -> None:
        context = multiprocessing.get_context("spawn")
        held = context.Event()
        process = context.Process(target=hold, args=(tmp_path, "/v", held))
        process.start()
        assert held.wait(30)
        with pytest.raises(LockedError, match=f"process {process.pid}"), volume_lock(tmp_path, volume()):
            pass
        process.kill()
        process.join()
        process.close()
        with volume_lock(tmp_path, volume()):
            pass

    def test_no_place_for_it(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(SourceError, match="cannot lock"), volume_lock(tmp_path / "file" / "x", volume()):
            pass

    def test_errors_of_the_work_pass_through(self, tmp_path: Path) -> None:
        with pytest.raises(OSError, match="mine"), volume_lock(tmp_path, volume()):
            raise OSError("mine")


class TestRecover:
    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        place = Place(tmp_path, names=("one", "two"))
        for name in place.names:
            fill(place.root(name))
        return place

    def begun(self, place: Place, name: str, swap: str) -> int:
        found = place.runtime.engine.find(place.spec(name))
        Swap(place.runtime.engine, found, swap).prepare()
        return Journal(place.runtime.state).begin(
            RestoreAct(volume=found, swap=swap, keep_old=False), place.clock.now()
        )

    def test_nothing_to_do(self, place: Place) -> None:
        assert recover(place.runtime) == []
        assert recover(place.runtime, [place.spec("one"), place.spec("none")]) == []

    def test_without_a_journal(self, place: Place) -> None:
        before = fingerprint(place.root("one"))
        self.begun(place, "one", "x-1")
        (place.runtime.state / "journal.sqlite").unlink()
        assert len(recover(place.runtime, [place.spec(name) for name in place.names])) == 1
        assert differences(before, fingerprint(place.root("one"))) == []

    def test_what_a_live_process_holds_is_left_to_it(self, place: Place) -> None:
        self.begun(place, "one", "x-1")
        with volume_lock(place.runtime.locks, place.runtime.engine.find(place.spec("one"))):
            assert recover(place.runtime, [place.spec("one")]) == []
        assert len(recover(place.runtime, [place.spec("one")])) == 1

    def test_a_volume_that_is_gone(self, place: Place, tmp_path: Path) -> None:
        self.begun(place, "one", "x-1")
        place.root("one").rename(tmp_path / "gone")
        (said,) = recover(place.runtime)
        assert "is gone" in said.outcome
        assert recover(place.runtime) == []

    def test_one_that_fails_does_not_stop_the_others(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in place.names:
            self.begun(place, name, f"{name}-1")
        undo = Swap.undo

        def failing(swap: Swap) -> None:
            if swap.volume.name == "one":
                raise SourceError("cannot")
            undo(swap)

        with monkeypatch.context() as patch:
            patch.setattr(Swap, "undo", failing)
            with pytest.raises(SourceError, match="cannot"):
                recover(place.runtime)
        (left,) = Journal(place.runtime.state).open_acts()
        assert isinstance(left.act, RestoreAct)
        assert left.act.swap == "one-1"
        assert len(recover(place.runtime)) == 1

    def test_acts_of_another_engine_wait_for_it(self, place: Place) -> None:
        self.begun(place, "one", "x-1")
        engine = MountedEngine()
        engine.name = "docker"
        assert recover(replace(place.runtime, engine=engine)) == []
        assert len(recover(place.runtime)) == 1


class TestRecoverServices:
    """Volumes first, then the services that a dead process had stopped."""

    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        place = Place(tmp_path)
        fill(place.root())
        return place

    @pytest.fixture
    def services(self, place: Place) -> FakeServices:
        place.runtime.engine.services = services = FakeServices()
        return services

    def held(self, place: Place, name: str, paused: bool = False) -> None:
        hold = HoldAct(service=f"id-{name}", name=name, how="stop", paused=paused)
        Journal(place.runtime.state).begin(hold, place.clock.now())

    def swapping(self, place: Place, *, decided: bool, under: bool = False) -> Swap:
        """A restore that died between two renames."""
        found = place.runtime.engine.find(place.spec())
        swap = Swap(place.runtime.engine, found, "x-1")
        journal = Journal(place.runtime.state)
        number = journal.begin(RestoreAct(volume=found, swap="x-1", keep_old=False, under=under), place.clock.now())
        swap.prepare()
        (place.root() / swap.staging / "new").touch()
        swap.ready()
        (place.root() / ".backupd-restore-x-1" / "old-root").mkdir()
        (place.root() / ".backupd-restore-x-1" / "state").write_text("moving-old\n")
        journal.decide([number], forward=decided)
        return swap

    @pytest.mark.parametrize("decided", [True, False])
    def test_a_service_that_was_started_meanwhile_is_stopped_first(
        self, place: Place, services: FakeServices, decided: bool
    ) -> None:
        root = str(place.root())
        services.add(a_service("db", root), a_service("web", root, depends_on=("db",)), a_service("new", root))
        self.swapping(place, decided=decided)
        self.held(place, "web")
        self.held(place, "db")
        seen = []
        services.before = lambda act: seen.append((place.root() / "new").exists()) if act.startswith("start") else None
        outcomes = [(item.subject, item.outcome.split(",")[0].split()[-1]) for item in recover(place.runtime)]
        assert outcomes[0] == (f"directory {root}", "finished" if decided else "undone")
        assert sorted(outcomes[1:]) == [(f"container {name}", "again") for name in ("db", "new", "web")]
        assert sorted(services.acts[:3]) == ["stop db", "stop new", "stop web"]
        assert services.acts.index("stop web") < services.acts.index("stop db")
        assert services.acts.index("start db") < services.acts.index("start web")
        assert seen == [decided] * 3
        assert recover(place.runtime) == []

    def test_settled_volumes_need_no_stop(self, place: Place, services: FakeServices) -> None:
        services.add(a_service("db", str(place.root())))
        swap = self.swapping(place, decided=True)
        swap.swap()
        self.held(place, "db")
        recover(place.runtime)
        assert services.acts == ["start db"]

    def test_a_restore_under_running_containers(self, place: Place, services: FakeServices) -> None:
        services.add(a_service("db", str(place.root())))
        self.swapping(place, decided=True, under=True)
        recover(place.runtime)
        assert services.acts == []

    def test_paused_again(self, place: Place, services: FakeServices) -> None:
        services.add(a_service("db", state="exited"))
        self.held(place, "db", paused=True)
        assert [item.outcome for item in recover(place.runtime)] == ["is as it was, paused"]
        assert services.state("db") == "paused"

    def test_killed_before_a_paused_one_was_stopped(self, place: Place, services: FakeServices) -> None:
        services.add(a_service("db", state="paused"))
        self.held(place, "db", paused=True)
        assert [item.outcome for item in recover(place.runtime)] == ["is paused"]
        assert services.acts == []
        assert recover(place.runtime) == []

    def test_one_that_others_wait_for_and_that_is_not_well(self, place: Place, services: FakeServices) -> None:
        services.add(a_service("db", state="exited"), a_service("web", depends_on=("db",), state="exited"))
        services.fails = lambda service: "exits" if service.name == "db" else ""
        self.held(place, "web")
        self.held(place, "db")
        assert len(recover(place.runtime)) == 2
        assert services.acts == ["start db", "start web"]
        assert "db is not running" in place.notes[-1]

    def test_services_of_a_volume_that_is_neither_old_nor_new_stay_down(
        self, place: Place, services: FakeServices, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        services.add(a_service("db", str(place.root()), state="exited"), a_service("cache", state="exited"))
        self.swapping(place, decided=True)
        self.held(place, "db")
        self.held(place, "cache")

        def fail(swap: Swap, **options: object) -> None:
            raise SourceError("no helper")

        with monkeypatch.context() as patch:
            patch.setattr(Swap, "complete", fail)
            with pytest.raises(SourceError, match="no helper"):
                recover(place.runtime)
        assert services.acts == ["start cache"]
        recover(place.runtime)
        assert services.acts == ["start cache", "start db"]

    def test_one_that_is_gone(self, place: Place, services: FakeServices) -> None:
        self.held(place, "db")
        assert "is gone" in recover(place.runtime)[0].outcome
        assert recover(place.runtime) == []

    def test_what_a_live_process_holds_is_left_to_it(self, place: Place, services: FakeServices) -> None:
        services.add(a_service("db", state="exited"))
        self.held(place, "db")
        with service_lock(place.runtime.locks, services.all["id-db"]):
            assert recover(place.runtime) == []
        assert services.acts == []
        assert len(recover(place.runtime)) == 1
