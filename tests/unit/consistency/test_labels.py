"""What labels say, who goes first, and which strategy comes of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from msgspec.structs import replace

from backupd.consistency import choosing, with_enabled
from backupd.consistency.choosing import Entry, choose
from backupd.consistency.labels import Labels
from backupd.consistency.live import LiveStrategy
from backupd.consistency.written import excluded
from backupd.engine import MountedEngine
from backupd.errors import ConfigError, SourceError, VolumeMissing
from backupd.model import Hook, Plan, Volume, VolumeSpec
from backupd.services import MountPoint, Service
from tests.support.runtime import Place
from tests.support.services import FakeServices, service

PROJECT = "com.docker.compose.project"
VOLUME = "com.docker.compose.volume"


def volume(name: str = "data", /, **labels: str) -> Volume:
    compose = {PROJECT: "shop", VOLUME: name}
    said = {f"backupd.{key.replace('_', '.')}": value for key, value in labels.items()}
    return Volume(name=f"shop_{name}", kind="volume", source=f"shop_{name}", labels={**compose, **said})


def user(name: str, /, *volumes: str, **labels: str) -> Service:
    said = {f"backupd.{key.replace('_', '.')}": value for key, value in labels.items()}
    mounts = tuple(MountPoint("volume", f"shop_{each}", f"/{each}", True) for each in volumes or ("data",))
    return service(name, mounts=mounts, labels=said)


def completed(found: Volume, *users: Service, **fields: object) -> VolumeSpec:
    return Labels(found, users).complete(VolumeSpec("v", volume="data", **fields))  # type: ignore[arg-type]


class TestLabels:
    def test_of_the_volume_before_those_of_containers(self) -> None:
        spec = completed(volume(exclude="*.log, a/b ,", user="me"), user("app", exclude="other", user="you"))
        assert spec.exclude == ("*.log", "a/b")
        assert spec.user == "me"
        assert completed(volume(), user("app", exclude="other", user="you")).user == "you"

    def test_the_configuration_before_both(self) -> None:
        found = volume(exclude="*.log", user="me", pre="x")
        hook = Hook("db", ("y",))
        spec = completed(found, user("app"), exclude=("mine",), user="I", pre=(hook,))
        assert (spec.exclude, spec.user, spec.pre, spec.post) == (("mine",), "I", (hook,), ())
        assert completed(found, user("app"), said=frozenset({"exclude", "pre"})).exclude == ()
        assert completed(found, user("app"), said=frozenset({"exclude", "pre"})).pre == ()

    def test_commands(self) -> None:
        found = volume(pre="freeze", pre_service="db", pre_user="postgres", pre_timeout="30s", post="thaw")
        spec = completed(found, user("app", pre="own", post="own again", post_timeout="7"))
        assert spec.pre == (
            Hook("db", ("sh", "-c", "freeze"), "postgres", 30),
            Hook("app", ("sh", "-c", "own"), None, 300),
        )
        assert spec.post == (Hook("app", ("sh", "-c", "thaw")), Hook("app", ("sh", "-c", "own again"), None, 7))

    def test_a_command_that_could_be_anybodys(self) -> None:
        with pytest.raises(SourceError, match="does not say in which container") as caught:
            completed(volume(pre="x"), user("app"), user("db"))
        assert "backupd.pre.service" in (caught.value.hint or "")

    @pytest.mark.parametrize("timeout", ["soon", "0", "-1", "1.5", "5m", "٣"])
    def test_a_timeout_that_is_none(self, timeout: str) -> None:
        with pytest.raises(SourceError, match="expected seconds"):
            completed(volume(pre="x", pre_timeout=timeout), user("app"))

    def test_containers_that_do_not_agree(self) -> None:
        with pytest.raises(SourceError, match=r"container a and label .* of container b do not agree"):
            _ = Labels(volume(), [user("a", consistency="stop"), user("b", consistency="pause")]).consistency
        assert Labels(volume(), [user("a", consistency="stop"), user("b", consistency="stop")]).consistency is not None


@dataclass
class Engine(MountedEngine):
    """Volumes that are only named."""

    there: list[Volume] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def volumes(self) -> list[Volume]:
        return self.there

    def find(self, spec: VolumeSpec) -> Volume:
        for found in self.there:
            if spec.volume in {found.labels[VOLUME], found.source}:
                return found
        raise VolumeMissing("none")


class TestChoosing:
    @pytest.fixture
    def place(self, place: Place) -> Place:
        return replace_engine(place)

    def chosen(self, place: Place, found: Volume, *users: Service, **fields: object) -> tuple[str, str]:
        services = FakeServices()
        services.add(*users)
        place.runtime.engine.services = services
        choice = choose(VolumeSpec("v", volume="data", **fields), found, place.runtime)  # type: ignore[arg-type]
        return choice.strategy.name, choice.why

    def test_who_says_it(self, place: Place) -> None:
        app = user("app", consistency="stop")
        said = {"consistency": "live", "said": frozenset({"consistency"})}
        assert self.chosen(place, volume(consistency="pause"), app, **said) == ("live", "the configuration says so")
        assert self.chosen(place, volume(consistency="pause"), app) == (
            "pause",
            "label backupd.consistency of volume shop_data says so",
        )
        assert self.chosen(place, volume(), app)[0] == "stop"
        assert self.chosen(place, volume(), user("app")) == ("auto", "nothing special is known of app")
        assert self.chosen(place, volume()) == ("auto", "no container is known to use it")

    def test_one_that_recognises_its_containers(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        entry = Entry("postgres", LiveStrategy, lambda user, volume: "postgres" in user.image)
        monkeypatch.setattr(choosing, "STRATEGIES", (*choosing.STRATEGIES, entry))
        db = replace(user("db"), image="postgres:16")
        assert self.chosen(place, volume(), user("app"), db) == ("live", "container db (postgres:16) uses it")
        explicit = {"consistency": "auto", "said": frozenset({"consistency"})}
        assert self.chosen(place, volume(), db, **explicit)[0] == "live", "`auto` means: look"
        assert self.chosen(place, volume(consistency="pause"), db, **explicit)[0] == "live", "whatever labels say"
        assert self.chosen(place, volume(consistency="auto"), db)[0] == "live"

    def test_a_label_that_names_none(self, place: Place) -> None:
        with pytest.raises(SourceError, match="no consistency 'magic'"):
            self.chosen(place, volume(consistency="magic"))


def replace_engine(place: Place) -> Place:
    place.runtime = replace(place.runtime, engine=Engine())
    return place


class TestJoining:
    def names(self, engine: Engine, plan: str = "first", configured: tuple[VolumeSpec, ...] = ()) -> list[str]:
        plans = ["first", "second"]
        joined = with_enabled(Plan(plan, (), ()), plans, configured, engine)
        return [spec.name for spec in joined.volumes]

    def test_who_joins_what(self) -> None:
        engine = Engine(
            there=[
                volume("a", enable="true"),
                volume("b", enable="Yes", plan="second"),
                volume("c"),
                volume("d", enable="false"),
                volume("E.x y", enable="1"),
                volume("_f", enable="on", name="six"),
                volume("_g", enable="on"),
            ]
        )
        assert self.names(engine) == ["a", "e.x_y", "six", "v_g"]
        assert self.names(engine, "second") == ["b"]

    def test_of_containers(self) -> None:
        engine = Engine(there=[volume("a"), volume("b", enable="false"), volume("c")])
        engine.services = services = FakeServices()
        services.add(user("app", "a", "b", enable="true", plan="second"), user("other", "c"))
        assert self.names(engine, "second") == ["a"]
        assert self.names(engine) == []

    def test_the_plan_called_default(self) -> None:
        engine = Engine(there=[volume("a", enable="true")])
        for plan, expected in (("first", 0), ("default", 1)):
            joined = with_enabled(Plan(plan, (), ()), ["first", "default"], (), engine)
            assert len(joined.volumes) == expected

    def test_what_is_configured_is_not_added(self) -> None:
        engine = Engine(there=[volume("a", enable="true"), volume("b", enable="true")])
        assert self.names(engine, configured=(VolumeSpec("mine", volume="a"), VolumeSpec("gone", volume="x"))) == ["b"]

    @pytest.mark.parametrize(
        ("labels", "message"),
        [
            ({"enable": "maybe"}, "expected true or false, not 'maybe'"),
            ({"enable": "true", "plan": "third"}, "plan 'third'"),
            ({"enable": "true", "name": "No!"}, "'No!' is not a name"),
            ({"enable": "true", "name": "taken"}, "called taken like another one"),
        ],
    )
    def test_labels_that_make_no_sense(self, labels: dict[str, str], message: str) -> None:
        engine = Engine(there=[volume("a", **labels)])
        with pytest.raises(ConfigError, match=message):
            self.names(engine, configured=(VolumeSpec("taken", volume="other"),))


@pytest.mark.parametrize(
    ("path", "patterns", "expected"),
    [
        ("./a.log", ["*.log"], True),
        ("./d/a.log", ["*.log"], True),
        ("./a.log/x", ["*.log"], True),
        ("./cache/tmp/x", ["cache/tmp"], True),
        ("./x/cache/tmp", ["cache/tmp"], False),
        ("./cache", ["cache/tmp"], False),
        ("./a/b/c", ["a/*"], True),
        ("./a/b/c", ["./a/"], True),
        (".", ["*"], False),
        ("./x", [], False),
    ],
)
def test_excluded(path: str, patterns: list[str], expected: bool) -> None:
    assert excluded(path, patterns) is expected
