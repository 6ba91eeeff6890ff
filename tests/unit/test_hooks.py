"""Commands before and after: order, failures, signals, kills."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from backupd.backup import back_up
from backupd.errors import EngineUnavailable, SourceError
from backupd.hooks import Around
from backupd.journal import Journal, PostAct
from backupd.lock import token_lock
from backupd.model import Hook, Plan
from backupd.recover import recover
from backupd.services import CommandResult
from tests.support.runtime import Place, fill
from tests.support.services import FakeServices, service

PRE, POST = Hook("app", ("freeze", "it")), Hook("app", ("thaw", "it"))
RUN_PRE, RUN_POST = "run freeze it in app", "run thaw it in app"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    fill(place.root())
    return place


@pytest.fixture
def services(place: Place) -> FakeServices:
    place.runtime.engine.services = services = FakeServices()
    services.add(service("app", str(place.root())), service("db"))
    return services


def plan(place: Place, **changes: object) -> Plan:
    spec = replace(place.spec(), pre=(PRE,), post=(POST,), consistency="pause", said=frozenset({"consistency"}))
    return replace(place.plan, volumes=(spec,), **changes)


def test_around_the_standstill(place: Place, services: FakeServices) -> None:
    services.results[RUN_PRE] = CommandResult(0, "one\ntwo\n", "")
    assert back_up(plan(place), place.runtime, place.stores).complete
    assert services.acts == [RUN_PRE, "pause app", "unpause app", RUN_POST]
    assert "pre in app: one" in place.notes
    assert Journal(place.runtime.state).open_acts() == []


def test_of_a_plan_around_all_of_it(place: Place, services: FakeServices) -> None:
    whole = plan(place, pre=(Hook("db", ("begin",)),), post=(Hook("db", ("end",)),))
    assert back_up(whole, place.runtime, place.stores).complete
    assert services.acts[0] == "run begin in db"
    assert services.acts[-1] == "run end in db"


def test_together(place: Place, services: FakeServices) -> None:
    assert back_up(plan(place, together=True), place.runtime, place.stores).complete
    assert services.acts == [RUN_PRE, "pause app", "unpause app", RUN_POST]


def test_pre_that_fails(place: Place, services: FakeServices) -> None:
    services.results[RUN_PRE] = CommandResult(3, "", "not now\n")
    with pytest.raises(SourceError, match="pre command in container app ended with 3: not now"):
        back_up(plan(place), place.runtime, place.stores)
    assert services.acts == [RUN_PRE, RUN_POST]


def test_post_that_fails_is_told_and_the_archive_kept(place: Place, services: FakeServices) -> None:
    services.results[RUN_POST] = CommandResult(1, "", "")
    result = back_up(plan(place), place.runtime, place.stores)
    assert not result.complete
    assert result.manifest.all_trouble == ["the post command in container app ended with 1"]
    assert Journal(place.runtime.state).open_acts() == []


def test_post_after_a_failure_and_a_signal(
    place: Place, services: FakeServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    for error in (SourceError("no helper"), KeyboardInterrupt()):
        services.acts.clear()

        def failing(*_: object, error: BaseException = error) -> None:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(place.runtime.engine, "tar_out", failing)
            with pytest.raises(type(error)):
                back_up(plan(place), place.runtime, place.stores)
        assert services.acts[-1] == RUN_POST
        assert Journal(place.runtime.state).open_acts() == []


def test_no_such_container(place: Place, services: FakeServices) -> None:
    del services.containers["id-app"]
    with pytest.raises(SourceError, match="no container app"):
        back_up(plan(place), place.runtime, place.stores)
    assert services.acts == []


def test_the_running_one_of_several(place: Place, services: FakeServices) -> None:
    services.add(
        service("shop-app-1", service="app", state="exited"), service("shop-app-2", service="app", state="running")
    )
    del services.containers["id-app"]
    with (
        pytest.raises(SourceError, match="no container app"),
        Around(place.runtime, [PRE], [], [place.runtime.engine.find(place.spec())]),
    ):
        pass  # the volume is of no project that is known
    services.add(service("user", str(place.root())))
    with Around(place.runtime, [PRE], [], [place.runtime.engine.find(place.spec())]):
        pass
    assert services.acts == ["run freeze it in shop-app-2"]


class TestRecover:
    def begun(self, place: Place, token: str = "t") -> None:
        act = PostAct(token=token, hooks=[replace(POST, user="1", timeout_seconds=5)])
        Journal(place.runtime.state).begin(act, place.clock.now())
        place.runtime.engine.name = "docker"

    def test_runs_it_once(self, place: Place, services: FakeServices) -> None:
        self.begun(place)
        (said,) = recover(place.runtime)
        assert said.outcome == "its post command of a backup that died was run"
        assert services.acts == [RUN_POST]
        assert recover(place.runtime) == []

    def test_leaves_it_to_a_live_process(self, place: Place, services: FakeServices) -> None:
        self.begun(place)
        with token_lock(place.runtime.locks, "t"):
            assert recover(place.runtime) == []
        assert services.acts == []
        assert len(recover(place.runtime)) == 1

    def test_one_that_fails_is_told_once(self, place: Place, services: FakeServices) -> None:
        services.results[RUN_POST] = CommandResult(1, "", "no")
        self.begun(place)
        assert "ended with 1: no" in recover(place.runtime)[0].outcome
        assert recover(place.runtime) == []

    def test_an_engine_that_is_away_is_tried_again(
        self, place: Place, services: FakeServices, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.begun(place)

        def away(*_: object, **__: object) -> None:
            raise EngineUnavailable("away")

        with monkeypatch.context() as patch:
            patch.setattr(services, "run", away)
            with pytest.raises(EngineUnavailable):
                recover(place.runtime)
        assert len(recover(place.runtime)) == 1
