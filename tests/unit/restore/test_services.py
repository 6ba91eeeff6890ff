"""A restore among services: who is stopped and started, in which order, and what happens if one is not well."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec import structs

from backupd.errors import ServiceUnhealthy, SourceError, VolumeInUse
from backupd.journal import HoldAct, Journal
from backupd.recover import recover
from backupd.repository import Manifest
from backupd.restore import watch as watching
from backupd.restore.around import look_around, refuse
from backupd.restore.target import RestoreRequest, plan_restore
from tests.support.runtime import Place, fill
from tests.support.staged_services import FakeServices, a_service


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path, names=("one", "two"))
    for name in place.names:
        fill(place.root(name))
    return place


@pytest.fixture
def services(place: Place) -> FakeServices:
    place.runtime.engine.services = services = FakeServices()
    return services


@pytest.fixture
def snapshot(place: Place) -> Manifest:
    """After it, `text` is old in both."""
    for name in place.names:
        (place.root(name) / "text").write_text("new")
    manifest = place.backup().manifest
    for name in place.names:
        (place.root(name) / "text").write_text("old")
    time.sleep(0.2)  # else it counts as written during the safety snapshot, whose writers are paused
    return manifest


def text(place: Place, name: str = "one") -> str:
    return (place.root(name) / "text").read_text()


def on_new_data(place: Place, how: str, which: str = "db") -> Callable[[object], str]:
    """This service fails on new data, and is well on the old."""
    return lambda service: how if service.name == which and text(place) == "new" else ""  # type: ignore[attr-defined]


def test_stopped_and_started_in_order(place: Place, services: FakeServices, snapshot: Manifest) -> None:
    """The worker depends on the database through the API, which does not use the volume and goes on."""
    one = str(place.root("one"))
    services.add(
        a_service("db", one),
        a_service("api", depends_on=("db",)),
        a_service("worker", one, depends_on=("api",)),
        a_service("web", one, str(place.root("two"))),
        a_service("other", project="another"),
    )
    result = place.restore(snapshot)
    assert sorted(services.acts[:2]) == ["stop web", "stop worker"]
    assert services.acts[2:] == ["stop db", "start web", "start db", "start worker"]
    assert text(place) == "new"
    assert result.away_seconds.keys() == {"db", "web", "worker"}
    assert result.downtime_seconds >= max(result.away_seconds.values()) > 0
    assert Journal(place.runtime.state).open_acts() == []


def test_they_run_until_all_is_staged_and_the_exchange_is_all_that_they_miss(
    place: Place, services: FakeServices, snapshot: Manifest
) -> None:
    services.add(a_service("db", str(place.root("one"))))
    seen = []

    def look(act: str) -> None:
        states = [path.read_text().strip() for path in place.base.glob("volumes/*/.backupd-restore-*/state")]
        holds = [seen.act for seen in Journal(place.runtime.state).open_acts() if isinstance(seen.act, HoldAct)]
        seen.append((act, states, [hold.name for hold in holds], len(place.repository().snapshots()[0])))

    services.before = look
    place.restore(snapshot)
    assert seen == [
        ("stop db", ["ready", "ready"], ["db"], 2),
        ("start db", ["swapped", "swapped"], ["db"], 2),
    ]


def test_one_that_asks_to_be_restarted_with_it(place: Place, services: FakeServices, snapshot: Manifest) -> None:
    services.add(
        a_service("db", str(place.root("one"))),
        a_service("pool", depends_on=("db",), restarts_with=("db",)),
        a_service("app", depends_on=("pool",), restarts_with=("pool",)),
        a_service("web", depends_on=("app",)),
        a_service("down", depends_on=("db",), restarts_with=("db",), state="exited"),
    )
    place.restore(snapshot)
    assert services.acts == ["stop app", "stop pool", "stop db", "start db", "start pool", "start app"]


def test_a_circle(place: Place, services: FakeServices, snapshot: Manifest) -> None:
    one = str(place.root("one"))
    services.add(a_service("a", one, depends_on=("b",)), a_service("b", one, depends_on=("a",)))
    place.restore(snapshot)
    assert sorted(services.acts[:2]) == ["stop a", "stop b"]
    assert sorted(services.acts[2:]) == ["start a", "start b"]


def test_a_stack_that_is_down_stays_down(place: Place, services: FakeServices, snapshot: Manifest) -> None:
    services.add(a_service("db", str(place.root("one")), state="exited"), a_service("new", state="created"))
    result = place.restore(snapshot)
    assert services.acts == []
    assert (result.downtime_seconds, result.away_seconds) == (0, {})
    assert text(place) == "new"


def test_paused_before_paused_after(place: Place, services: FakeServices, snapshot: Manifest) -> None:
    services.add(a_service("db", str(place.root("one")), state="paused"))
    place.restore(snapshot)
    assert services.acts == ["unpause db", "stop db", "start db", "pause db"]
    assert services.state("db") == "paused"


def test_one_that_can_not_be_paused_again_is_no_reason_to_go_back(
    place: Place, services: FakeServices, snapshot: Manifest
) -> None:
    def no_pause(act: str) -> None:
        if act.startswith("pause"):
            raise SourceError("unable to freeze")

    services.add(a_service("db", str(place.root("one")), state="paused"))
    services.before = no_pause
    place.restore(snapshot)
    assert text(place) == "new"
    assert place.notes[-1] == "db was paused before, and runs now: unable to freeze"


def test_one_that_crashes_again_and_again_is_what_restores_are_for(
    place: Place, services: FakeServices, snapshot: Manifest
) -> None:
    services.add(a_service("db", str(place.root("one")), state="restarting", restarts=9))
    place.restore(snapshot)
    assert services.state("db") == "running"


class TestNotWell:
    @pytest.mark.parametrize(
        ("how", "said"),
        [
            ("exits", "container db ended with exit code 7"),
            ("loops", "container db keeps ending, with exit code 7"),
            ("unhealthy", r"container db was still unhealthy after 0\.4 s"),
        ],
    )
    def test_old_data_come_back_by_themselves(
        self, place: Place, services: FakeServices, snapshot: Manifest, how: str, said: str
    ) -> None:
        services.add(
            a_service("db", str(place.root("one")), environment={"POSTGRES_PASSWORD": "hunter2", "MODE": "fast"}),
            a_service("web", str(place.root("two")), depends_on=("db",)),
        )
        services.said["db"] = ["1", "2", "3", "4", "5", "cannot log in with hunter2, fast\x1b[2J"]
        services.fails = on_new_data(place, how)
        before = place.prints()
        within = 0.4 if how == "unhealthy" else 300
        with pytest.raises(ServiceUnhealthy, match=f"^{said}.*: the old data are back in place, and all .* well again"):
            place.restore(snapshot, safety_snapshot=False, healthy_within_seconds=within)
        assert place.prints() == before
        assert services.acts == [
            *("stop web", "stop db", "start db"),
            *("stop web", "stop db", "start db", "start web"),
        ]
        assert "  db | cannot log in with ********, fast [2J" in place.notes
        assert "  db | 1" not in place.notes
        assert Journal(place.runtime.state).open_acts() == []

    def test_a_service_of_the_second_volume_takes_both_back(
        self, place: Place, services: FakeServices, snapshot: Manifest
    ) -> None:
        services.add(a_service("db", str(place.root("one"))), a_service("cache", str(place.root("two"))))
        services.fails = on_new_data(place, "exits", "cache")
        before = place.prints()
        with pytest.raises(ServiceUnhealthy, match="container cache ended"):
            place.restore(snapshot, safety_snapshot=False)
        assert place.prints() == before
        assert {services.state("db"), services.state("cache")} == {"running"}

    def test_unhealthy_is_a_state_that_may_pass(self, place: Place, services: FakeServices, snapshot: Manifest) -> None:
        services.add(a_service("db", str(place.root("one"))))
        services.fails = on_new_data(place, "slow")
        place.restore(snapshot)
        assert text(place) == "new"

    def test_no_rollback(self, place: Place, services: FakeServices, snapshot: Manifest) -> None:
        services.add(a_service("db", str(place.root("one"))))
        services.fails = on_new_data(place, "exits")
        result = place.restore(snapshot, rollback=False)
        assert result.unhealthy == "container db ended with exit code 7"
        assert text(place) == "new"
        assert not list(place.root("one").glob(".backupd-*"))
        assert Journal(place.runtime.state).open_acts() == []

    def test_not_well_on_the_old_data_either(self, place: Place, services: FakeServices, snapshot: Manifest) -> None:
        services.add(a_service("db", str(place.root("one"))))
        services.fails = lambda service: "exits"
        with pytest.raises(ServiceUnhealthy, match="old data are back in place, but container db ended"):
            place.restore(snapshot)
        assert text(place) == "old"
        assert Journal(place.runtime.state).open_acts() == []

    @pytest.mark.parametrize("rollback", [True, False])
    def test_all_are_started_though_the_first_is_not_well(
        self, place: Place, services: FakeServices, snapshot: Manifest, rollback: bool
    ) -> None:
        services.add(
            a_service("db", str(place.root("one"))),
            a_service("web", str(place.root("one")), depends_on=("db",)),
            a_service("other", str(place.root("two")), state="paused"),
        )
        services.fails = lambda service: "exits" if service.name == "db" else ""
        if rollback:
            with pytest.raises(ServiceUnhealthy):
                place.restore(snapshot)
        else:
            assert place.restore(snapshot, rollback=False).unhealthy
        assert (services.state("web"), services.state("other")) == ("running", "paused")
        assert Journal(place.runtime.state).open_acts() == []

    def test_the_engine_goes_away(self, place: Place, services: FakeServices, snapshot: Manifest) -> None:
        services.add(a_service("db", str(place.root("one"))))

        def no_start(act: str) -> None:
            if act.startswith("start"):
                raise SourceError("engine away")

        services.before = no_start
        with pytest.raises(SourceError, match="old data are in place, but not all services could be started: engine"):
            place.restore(snapshot)
        assert text(place) == "old"
        services.before = lambda act: None
        assert [item.outcome for item in recover(place.runtime)] == ["runs again"]
        assert services.state("db") == "running"

    @pytest.mark.parametrize("steady", [True, False])
    def test_without_a_health_check_it_has_to_stay(
        self,
        place: Place,
        services: FakeServices,
        snapshot: Manifest,
        monkeypatch: pytest.MonkeyPatch,
        steady: bool,
    ) -> None:
        monkeypatch.setattr(watching, "STEADY_SECONDS", 0.5)
        services.add(a_service("db", str(place.root("one")), has_health_check=False))
        services.add(a_service("web", str(place.root("one")), has_health_check=False, depends_on=("db",)))
        if not steady:
            services.fails = on_new_data(place, "loops", "web")
            with pytest.raises(ServiceUnhealthy, match="web keeps ending"):
                place.restore(snapshot)
            return
        began = time.monotonic()
        result = place.restore(snapshot, safety_snapshot=False)
        assert time.monotonic() - began > 0.5
        assert result.downtime_seconds < time.monotonic() - began - 0.4, "it was there from its start on"


class TestRefused:
    @pytest.fixture(autouse=True)
    def nothing_has_changed(self, place: Place, services: FakeServices, snapshot: Manifest) -> object:
        before = place.prints()
        yield
        assert place.prints() == before
        assert services.acts == []
        assert len(place.repository().snapshots()[0]) == 1
        assert Journal(place.runtime.state).open_acts() == []

    @pytest.mark.parametrize("project", ["another", None])
    @pytest.mark.parametrize("writable", [True, False])
    def test_a_stranger(
        self, place: Place, services: FakeServices, snapshot: Manifest, project: str | None, writable: bool
    ) -> None:
        guest = a_service("guest", str(place.root("one")), project=project)
        mount = guest.mounts[0]
        guest = structs.replace(guest, mounts=(type(mount)("volume", mount.source, "/data", writable),))
        services.add(a_service("db", str(place.root("one"))), guest)
        with pytest.raises(VolumeInUse, match=r"guest uses the volume and is of .*not of this project") as caught:
            place.restore(snapshot, project="shop")
        assert "db" not in str(caught.value)

    def test_one_that_would_vanish(self, place: Place, services: FakeServices, snapshot: Manifest) -> None:
        services.add(a_service("shell", str(place.root("one")), removed_when_stopped=True))
        with pytest.raises(VolumeInUse, match="shell was started with --rm"):
            place.restore(snapshot)

    @pytest.mark.parametrize("force", [True, False])
    def test_one_that_somebody_else_starts_again(
        self, place: Place, services: FakeServices, snapshot: Manifest, force: bool
    ) -> None:
        services.add(a_service("db", str(place.root("one")), orchestrator="Swarm"))
        with pytest.raises(VolumeInUse, match=r"db \(Swarm\) would be started again"):
            place.restore(snapshot, force=force)

    def test_no_stop(self, place: Place, services: FakeServices, snapshot: Manifest) -> None:
        services.add(a_service("db", str(place.root("one"))))
        with pytest.raises(VolumeInUse, match="in use by db") as caught:
            place.restore(snapshot, stop=False)
        assert caught.value.hint is not None
        assert "docker stop db" in caught.value.hint


class TestForced:
    def test_a_stranger_is_stopped_and_started(self, place: Place, services: FakeServices, snapshot: Manifest) -> None:
        services.add(a_service("guest", str(place.root("one")), project=None))
        place.restore(snapshot, project="shop", force=True)
        assert services.acts == ["stop guest", "start guest"]

    def test_without_a_project_there_are_no_strangers(
        self, place: Place, services: FakeServices, snapshot: Manifest
    ) -> None:
        services.add(a_service("guest", str(place.root("one")), project=None))
        place.restore(snapshot)
        assert services.acts == ["stop guest", "start guest"]

    def test_one_that_vanishes(self, place: Place, services: FakeServices, snapshot: Manifest) -> None:
        services.add(a_service("shell", str(place.root("one")), removed_when_stopped=True))
        place.restore(snapshot, force=True)
        assert services.acts == ["stop shell"]
        assert Journal(place.runtime.state).open_acts() == []

    def test_under_running_containers(self, place: Place, services: FakeServices, snapshot: Manifest) -> None:
        services.add(a_service("db", str(place.root("one")), orchestrator="Swarm"))
        place.restore(snapshot, stop=False, force=True)
        assert services.acts == []
        assert text(place) == "new"


def test_somebody_comes_while_services_stop(place: Place, services: FakeServices, snapshot: Manifest) -> None:
    services.add(a_service("db", str(place.root("one"))))
    services.before = lambda act: services.add(a_service("late", str(place.root("two")))) if "stop" in act else None
    before = place.prints()
    with pytest.raises(VolumeInUse, match="in use by late"):
        place.restore(snapshot, safety_snapshot=False)
    assert place.prints() == before
    assert services.acts == ["stop db", "start db"]


def test_a_stop_that_fails(place: Place, services: FakeServices, snapshot: Manifest) -> None:
    services.add(a_service("db", str(place.root("one"))), a_service("web", str(place.root("one")), depends_on=("db",)))

    def fail(act: str) -> None:
        if act == "stop db":
            raise SourceError("it will not")

    services.before = fail
    before = place.prints()
    with pytest.raises(SourceError, match="it will not"):
        place.restore(snapshot, safety_snapshot=False)
    assert place.prints() == before
    assert services.acts == ["stop web", "start db", "start web"]
    assert Journal(place.runtime.state).open_acts() == []


def test_a_stop_that_fails_ahead_of_a_paused_one(place: Place, services: FakeServices, snapshot: Manifest) -> None:
    services.add(a_service("cache", str(place.root("one")), state="paused", depends_on=()))
    services.add(a_service("web", str(place.root("one")), depends_on=("cache",)))

    def fail(act: str) -> None:
        if act == "stop web":
            raise SourceError("it will not")

    services.before = fail
    with pytest.raises(SourceError, match="it will not"):
        place.restore(snapshot, safety_snapshot=False)
    assert services.state("cache") == "paused"
    assert "unpause cache" not in services.acts
    assert services.state("web") == "running"
    assert Journal(place.runtime.state).open_acts() == []


def test_interrupted_by_the_user_while_waiting(place: Place, services: FakeServices, snapshot: Manifest) -> None:
    services.add(a_service("db", str(place.root("one"))))
    interrupts = iter([KeyboardInterrupt()])

    def interrupt(act: str) -> None:
        if act == "start db":
            for error in interrupts:
                raise error

    services.before = interrupt
    with pytest.raises(KeyboardInterrupt):
        place.restore(snapshot)
    assert text(place) == "old"
    assert services.state("db") == "running"
    assert Journal(place.runtime.state).open_acts() == []


def test_groups_that_may_be_stopped_at_once(place: Place, services: FakeServices, snapshot: Manifest) -> None:
    one = str(place.root("one"))
    services.add(
        a_service("db", one),
        a_service("cache", one),
        a_service("app1", one, depends_on=("db", "cache")),
        a_service("app2", one, depends_on=("db",)),
        a_service("proxy", one, depends_on=("app1", "app2")),
    )
    request = RestoreRequest()
    configured = {name: place.spec(name) for name in place.names}
    steps = plan_restore(request, snapshot, place.repository(), place.runtime, configured)
    around = look_around(steps, request, services)
    refuse(around, request)
    assert [sorted(service.name for service in layer) for layer in around.layers()] == [
        ["proxy"],
        ["app1", "app2"],
        ["cache", "db"],
    ]
