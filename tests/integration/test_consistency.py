"""Real containers that write while they are backed up: how long they stand, and that they always go on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docker
import pytest
from msgspec.structs import replace

from backupd.backup import back_up
from backupd.engine import DockerEngine
from backupd.journal import Journal, PostAct
from backupd.lock import service_lock
from backupd.model import Plan, VolumeSpec
from backupd.recover import recover
from backupd.runtime import Runtime
from backupd.stores.memory import MemoryStore
from tests.support.cli import ROOT, Cli
from tests.support.dockerd import Host
from tests.support.runtime import make_runtime
from tests.support.stacks import LOCK_STEP, WRITER, Stack, longest_gap, wait_until

pytestmark = pytest.mark.docker


@pytest.fixture
def stack(
    docker_client: docker.DockerClient,
    run_container: Callable[..., Any],
    make_volume: Callable[..., str],
    volume_root: Callable[[str], Path],
    helper_image: str,
) -> Stack:
    return Stack(docker_client, run_container, make_volume, volume_root, helper_image)


@pytest.fixture
def settings(stack: Stack, docker_host: Host, helper_image: str) -> dict[str, Any]:
    return {"project": stack.project, "docker": {"host": docker_host.url, "helper_image": helper_image}}


@pytest.fixture
def runtime(docker_engine: DockerEngine, tmp_path: Path) -> Runtime:
    return make_runtime(tmp_path / "state", docker_engine)


def plan(*volumes: str, consistency: str = "auto", **rest: Any) -> Plan:
    said = frozenset({"consistency"}) if consistency != "auto" else frozenset()
    specs = (VolumeSpec(name, volume=name, consistency=consistency, said=said) for name in volumes)  # type: ignore[arg-type]
    return Plan("p", tuple(specs), ("local",), **rest)


def fill(root: Path, megabytes: int = 48) -> None:
    (root / "data").write_bytes(os.urandom(megabytes << 20))


@pytest.mark.parametrize("how", ["pause", "stop"])
def test_downtime_is_that_of_reading_and_measured(stack: Stack, runtime: Runtime, how: str) -> None:
    """The gap that the writer saw is what the manifest says, and far below what the whole backup took."""
    volume = stack.volume("data")
    fill(stack.root(volume))
    writer = stack.container("writer", WRITER, volumes=[f"{volume}:/srv"])
    wait_until(lambda: (stack.root(volume) / "log").exists())
    store = MemoryStore("local")
    archive = back_up(plan(volume, consistency=how), runtime, [store]).manifest.archives[0]
    assert stack.state(writer) == "running"
    time.sleep(0.1)
    gap, said = longest_gap(stack.root(volume) / "log"), archive.downtime[writer.name]
    assert abs(gap - said) < 1, (gap, said)
    assert archive.moment is not None
    assert not archive.full, "a rehearsal came first"
    assert archive.warnings == [], "nothing moved under tar"


def test_let_go_before_the_upload_ends(stack: Stack, runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = stack.volume("data")
    writer = stack.container("writer", WRITER, volumes=[f"{volume}:/srv"])
    seen: list[str] = []

    class Slow(MemoryStore):
        def create(self, key: str, size_hint: int | None = None) -> Any:
            made = super().create(key, size_hint)
            commit = made.commit

            def slow() -> None:
                seen.append(stack.state(writer))
                time.sleep(1)
                commit()

            monkeypatch.setattr(made, "commit", slow, raising=False)
            return made

    archive = back_up(plan(volume, consistency="pause"), runtime, [Slow("local")]).manifest.archives[0]
    assert set(seen) == {"running"}
    assert len(seen) == 4, "the rehearsal's data, then three objects"
    assert archive.downtime[writer.name] < 4, "each commit takes a second"


def test_order_of_a_stack(stack: Stack, runtime: Runtime) -> None:
    volume = stack.volume("data")
    mount = [f"{volume}:/srv"]
    db = stack.container("db", volumes=mount)
    app = stack.container("app", volumes=mount, depends_on=["db"])
    web = stack.container("web", volumes=mount, depends_on=["app", "db"])
    stranger = stack.container("stranger")
    stranger.reload()
    began = stranger.attrs["State"]["StartedAt"]
    since = time.time()
    back_up(plan(volume, consistency="stop"), runtime, [MemoryStore("local")])
    events = stack.client.events(
        since=int(since), until=int(time.time()) + 1, decode=True, filters={"type": "container"}
    )
    names = {container.id: container.name.split("-")[1] for container in (db, app, web)}
    seen = [
        event for event in events if event["id"] in names and event["timeNano"] > since * 1e9
    ]  # not when they began
    acts = [(event["Action"], names[event["id"]]) for event in seen]
    order = [act for act in acts if act[0] in {"stop", "start"}]
    assert order == [
        ("stop", "web"),
        ("stop", "app"),
        ("stop", "db"),
        ("start", "db"),
        ("start", "app"),
        ("start", "web"),
    ]
    stranger.reload()
    assert stranger.attrs["State"]["StartedAt"] == began


def test_its_own_time_to_stop(stack: Stack, runtime: Runtime) -> None:
    """A program that needs longer than the usual ten seconds is not killed if its container says so."""
    volume = stack.volume("data")
    command = ["sh", "-c", "trap 'sleep 12; echo done >/srv/end; exit 0' TERM; while :; do sleep 0.1; done"]
    created = stack.client.api.create_container(
        stack.image,
        command,
        stop_timeout=40,
        labels={"backupd.test": stack.project},
        host_config=stack.client.api.create_host_config(binds=[f"{volume}:/srv"], init=True),
    )
    container = stack.client.containers.get(created["Id"])
    try:
        container.start()
        time.sleep(0.5)
        back_up(plan(volume, consistency="stop"), runtime, [MemoryStore("local")])
        assert (stack.root(volume) / "end").read_text() == "done\n"
        assert stack.state(container) == "running"
    finally:
        container.remove(force=True)


class TestAuto:
    def test_quiet(self, stack: Stack, runtime: Runtime) -> None:
        volume = stack.volume("data")
        fill(stack.root(volume), 1)
        app = stack.container("app", volumes=[f"{volume}:/srv"])
        time.sleep(0.2)
        app.reload()
        pid, since = app.attrs["State"]["Pid"], int(time.time())
        archive = back_up(plan(volume), runtime, [MemoryStore("local")]).manifest.archives[0]
        assert archive.consistency == "auto: nothing was written"
        assert archive.downtime == {}
        until = int(time.time()) + 1
        events = stack.client.events(since=since, until=until, decode=True, filters={"container": app.id})
        assert [event["Action"] for event in events if event["Action"] in {"pause", "stop", "kill", "die"}] == []
        app.reload()
        assert app.attrs["State"]["Pid"] == pid

    def test_busy(self, stack: Stack, runtime: Runtime) -> None:
        volume = stack.volume("data")
        fill(stack.root(volume))
        writer = stack.container("writer", WRITER, volumes=[f"{volume}:/srv"])
        wait_until(lambda: (stack.root(volume) / "log").exists())
        archive = back_up(plan(volume), runtime, [MemoryStore("local")]).manifest.archives[0]
        assert archive.consistency == "auto: paused"
        assert archive.warnings == []
        time.sleep(0.1)
        assert abs(longest_gap(stack.root(volume) / "log") - archive.downtime[writer.name]) < 1

    def test_busy_under_busybox(
        self, stack: Stack, docker_engines: Callable[[str], DockerEngine], tmp_path: Path
    ) -> None:
        """Its tools cannot tell, so who can write is paused."""
        volume = stack.volume("data")
        stack.container("app", volumes=[f"{volume}:/srv"])
        runtime = make_runtime(tmp_path / "state", docker_engines("docker-fifo-busybox"))
        archive = back_up(plan(volume), runtime, [MemoryStore("local")]).manifest.archives[0]
        assert archive.consistency == "auto: paused"


def counters(cli: Cli, names: tuple[str, str], target: Path) -> list[int]:
    """The counters of two volumes in the newest snapshot."""
    for name in names:
        cli.run("restore", "latest", name, "--to-dir", str(target / name), "--yes")
    return [int((target / name / "n").read_text().split()[-1]) for name in names]


def test_together(stack: Stack, make_cli: Callable[..., Cli], settings: dict[str, Any], tmp_path: Path) -> None:
    """Without it, the second volume is far ahead of the first."""
    names = ("one", "two")
    volumes = [stack.volume(name) for name in names]
    for volume in volumes:
        fill(stack.root(volume), 24)
    stack.container("app", LOCK_STEP, volumes=[f"{volumes[0]}:/one", f"{volumes[1]}:/two"])
    wait_until(lambda: (stack.root(volumes[1]) / "n").exists())
    configured = {name: {"volume": name} for name in names}
    both = {"volumes": list(names), "stores": ["local"]}
    cli = make_cli(**settings, volumes=configured, plans={"apart": both, "together": {**both, "together": True}})
    cli.run("backup", "apart")
    one, two = counters(cli, names, tmp_path / "apart")
    assert two - one > 1, "else this test shows nothing"
    manifest = cli.json("backup", "together")["snapshot"]
    assert manifest["moment"] is not None
    assert [archive["moment"] for archive in manifest["archives"]] == [manifest["moment"]] * 2
    assert [list(archive["downtime"]) for archive in manifest["archives"]] == [[f"{stack.project}-app-1"]] * 2
    one, two = counters(cli, names, tmp_path / "together")
    assert one - two in {0, 1}
    assert "moment" in cli.run("show", "latest").stdout


def test_all_said_in_the_compose_file(stack: Stack, make_cli: Callable[..., Cli], settings: dict[str, Any]) -> None:
    labels = {"backupd.enable": "true", "backupd.consistency": "stop", "backupd.exclude": "*.tmp, cache/x"}
    volume = stack.volume("Data.1", labels)
    other = stack.volume("other")
    stack.volume("not_this_one")
    stack.volume("nor_this", {"backupd.enable": "false"})
    for name in ("a.tmp", "keep"):
        (stack.root(volume) / name).write_text(name)
    app_labels = {"backupd.pre": "echo before >>/srv/hooks", "backupd.post": "echo after >>/srv/hooks"}
    stack.container("app", volumes=[f"{volume}:/srv"], labels=app_labels)
    stack.container("more", volumes=[f"{other}:/srv"], labels={"backupd.enable": "true", "backupd.plan": "second"})
    plans = {"first": {"stores": ["local"]}, "second": {"stores": ["local"]}}
    cli = make_cli(**settings, plans=plans)
    shown = cli.json("config", "show")["strategies"]
    assert shown["data.1"] == {
        "strategy": "stop",
        "why": f"label backupd.consistency of volume {volume} says so",
    }
    assert shown["other"]["strategy"] == "auto"
    manifest = cli.json("backup", "first")["snapshot"]
    assert [archive["volume"] for archive in manifest["archives"]] == ["data.1"]
    assert manifest["archives"][0]["consistency"] == "stop"
    assert (stack.root(volume) / "hooks").read_text() == "before\nafter\n"
    listing = cli.run("ls", "latest", "data.1").stdout
    assert "keep" in listing
    assert "a.tmp" not in listing
    assert [a["volume"] for a in cli.json("backup", "second")["snapshot"]["archives"]] == ["other"]
    overruled = make_cli(
        **settings, volumes={"mine": {"volume": "Data.1", "consistency": "live", "exclude": []}}, plans=plans
    )
    text = overruled.run("config", "show").stdout
    assert "#   mine: live: the configuration says so" in text
    assert "data.1" not in text.split("# how volumes are read")[1]


def test_config_show_without_an_engine(make_cli: Callable[..., Cli]) -> None:
    cli = make_cli(docker={"host": "unix:///nowhere.sock"}, volumes={"v": {"volume": "v"}})
    assert "#   v: not known: " in cli.run("config", "show").stdout


class TestKilled:
    """A real process is killed at each of its writes to the journal; the next command lets go what it held."""

    @pytest.fixture
    def cli(self, stack: Stack, make_cli: Callable[..., Cli], settings: dict[str, Any]) -> Cli:
        one, two = stack.volume("one"), stack.volume("two")
        self.containers = [
            stack.container("db", volumes=[f"{one}:/one", f"{two}:/srv"]),
            stack.container("app", volumes=[f"{one}:/one"], depends_on=["db"]),
        ]
        self.hooks = stack.root(two) / "hooks"
        hook = {"service": "db", "command": "echo post >>/srv/hooks"}
        volume = {"consistency": "stop", "post": [hook]}
        plan = {"volumes": ["one"], "stores": ["local"]}
        return make_cli(
            **settings,
            volumes={"one": {"volume": "one", **volume}, "two": {"volume": "two", "consistency": "pause"}},
            plans={"stop": plan, "together": {"volumes": ["two", "one"], "stores": ["local"], "together": True}},
        )

    def dying(self, cli: Cli, number: int, when: str, plan: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tests.support.dying", str(number), when, "journal", "backup", plan]
        return subprocess.run(command, cwd=ROOT, env=cli.env(), capture_output=True, text=True, check=False)

    @pytest.mark.slow
    @pytest.mark.timeout(1200)
    @pytest.mark.parametrize("plan", ["stop", "together"])
    def test_at_every_step(
        self, stack: Stack, cli: Cli, plan: str, tmp_path: Path, docker_engine: DockerEngine
    ) -> None:
        runtime = make_runtime(tmp_path / "state", docker_engine)
        clean = self.dying(cli, 0, "before", plan)
        assert clean.returncode == 0, clean.stderr
        writes = clean.stderr.splitlines()[-1].split()
        assert writes.count("Journal.begin") == writes.count("Journal.end") >= 4, "post, clone and two services"
        # After a `begin` its act is not yet done; before a write, the act before it is. After an `end` tells no more.
        points = [(number, "before") for number in range(1, len(writes) + 1)]
        points += [(number, "after") for number, write in enumerate(writes, 1) if write == "Journal.begin"]
        journal = Journal(tmp_path / "state")
        stood, posted = 0, 0
        for number, when in points:
            self.hooks.unlink(missing_ok=True)
            died = self.dying(cli, number, when, plan)
            assert died.returncode == -signal.SIGKILL, (number, when, died.stderr)
            stood += stack.states(*self.containers) != {"running"}
            was_due = any(isinstance(seen.act, PostAct) for seen in journal.open_acts())
            recover(runtime)
            assert stack.states(*self.containers) == {"running"}, (number, when)
            assert journal.open_acts() == []
            if was_due:
                posted += 1
                assert "post" in self.hooks.read_text()
        assert stood >= 3
        assert posted >= 3
        assert cli.json("backup", plan)["snapshot"]["archives"]
        assert cli.run("verify").returncode == 0

    def test_a_service_that_is_removed_before_recovery(self, cli: Cli, stack: Stack, tmp_path: Path) -> None:
        """The fourth write ends with the first service's hold journaled and done."""
        for number in range(1, 12):
            self.dying(cli, number, "after", "stop")
            if "exited" in stack.states(*self.containers):
                break
            cli.run("recover")
        else:
            pytest.fail("no kill left a service behind")
        gone = next(container for container in self.containers if container.status == "exited")
        gone.remove(force=True)
        assert "is gone" in cli.run("recover").stdout
        assert Journal(tmp_path / "state").open_acts() == []

    def test_terminated(self, cli: Cli, stack: Stack, tmp_path: Path) -> None:
        """SIGTERM while services stand: they go on, and post is run, before the process ends."""
        process = subprocess.Popen(cli.command("backup", "stop"), env=cli.env(), stderr=subprocess.PIPE, text=True)
        wait_until(lambda: stack.states(*self.containers) != {"running"})
        process.terminate()
        _, said = process.communicate(timeout=60)
        assert process.returncode in {0, 130}, said
        assert stack.states(*self.containers) == {"running"}
        assert Journal(tmp_path / "state").open_acts() == []
        assert self.hooks.read_text() == "post\n"


def test_a_service_that_is_removed_meanwhile(stack: Stack, runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = stack.volume("data")
    app = stack.container("app", volumes=[f"{volume}:/srv"])
    store = MemoryStore("local")
    back_up(plan(volume, consistency="stop"), runtime, [store])
    tar_out = runtime.engine.tar_out

    def removing(*arguments: Any) -> Any:
        app.remove(force=True)
        return tar_out(*arguments)

    monkeypatch.setattr(runtime.engine, "tar_out", removing)
    assert back_up(plan(volume, consistency="stop"), runtime, [store]).complete
    assert Journal(runtime.state).open_acts() == []


def test_a_service_that_does_not_come_back(
    stack: Stack, make_cli: Callable[..., Cli], settings: dict[str, Any]
) -> None:
    """Exit code 3, in words, in the manifest, and the snapshot is there."""
    volume = stack.volume("data")
    once = [
        "sh",
        "-c",
        "[ ! -e /srv/once ] || exit 7; touch /srv/once; trap 'exit 0' TERM; while :; do sleep 0.1; done",
    ]
    stack.container("app", once, volumes=[f"{volume}:/srv"])
    cli = make_cli(**settings, volumes={"data": {"volume": "data", "consistency": "stop"}})
    wait_until(lambda: (stack.root(volume) / "once").exists())
    said = cli.error("backup", code=3)
    assert f"container {stack.project}-app-1 is not running" in said
    assert "trouble" in cli.run("list").stdout
    assert "is not running" in cli.run("show", "latest").stdout


def test_two_processes_and_one_service(
    stack: Stack, make_cli: Callable[..., Cli], settings: dict[str, Any], tmp_path: Path
) -> None:
    """Two volumes of one container, backed up at the same time: each holds it for itself, and it runs in the end."""
    names = ("one", "two")
    mounts = [f"{stack.volume(name)}:/{name}" for name in names]
    app = stack.container("app", volumes=mounts)
    plans = {name: {"volumes": [name], "stores": [name]} for name in names}
    volumes = {name: {"volume": name, "consistency": "pause"} for name in names}
    stores = {name: {"type": "local", "path": str(tmp_path / name)} for name in names}
    cli = make_cli(**settings, volumes=volumes, plans=plans, stores=stores)
    processes = [
        subprocess.Popen(cli.command("backup", name, "--json"), env=cli.env(), stdout=subprocess.PIPE, text=True)
        for name in names * 2
    ]
    codes = []
    for process in processes:
        process.communicate(timeout=120)
        codes.append(process.returncode)
    assert set(codes) <= {0, 11}, "a volume that is being read is locked"
    assert codes.count(0) >= 2
    assert stack.state(app) == "running"
    assert Journal(tmp_path / "state").open_acts() == []


def test_waits_for_who_holds_a_service(stack: Stack, runtime: Runtime, tmp_path: Path) -> None:
    """What another process has paused is looked at again when it lets go, not taken for something that stands."""
    import threading  # noqa: PLC0415

    volume = stack.volume("data")
    app = stack.container("app", volumes=[f"{volume}:/srv"])
    services = runtime.engine.services
    service = services.inspect(app.id)
    assert service is not None
    results: list[Any] = []

    def run() -> None:
        other = replace(runtime, state=runtime.state)
        results.append(back_up(plan(volume, consistency="pause"), other, [MemoryStore("local")]))

    with service_lock(runtime.locks, service):
        services.pause(service)
        thread = threading.Thread(target=run)
        thread.start()
        time.sleep(2)
        assert not results
        services.unpause(service)
    thread.join(60)
    assert results[0].manifest.archives[0].downtime.keys() == {app.name}
    assert stack.state(app) == "running"
