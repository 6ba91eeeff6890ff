"""Fixtures: a Docker Engine, images without a registry, volumes that are always removed, and every kind of engine.

Without a Docker Engine the tests that need one are skipped, which the summary says in a line of its own; with
BACKUPD_REQUIRE_DOCKER=1 they fail.
"""

from __future__ import annotations

import contextlib
import functools
import os
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.errors import APIError, NotFound

from backupd.engine import DockerEngine, DockerOptions, MountedEngine
from backupd.model import TarFlavour, Volume, VolumeSpec
from backupd.ports import Engine
from tests.support.dockerd import Host, NoEngine
from tests.support.dockerd import docker_host as a_docker_host
from tests.support.images import Images
from tests.support.sidecar_image import SidecarImage

TEST_LABEL = "backupd.test"
SKIPPED = pytest.StashKey[str]()
ENGINES = ("docker-fifo-gnu", "docker-attach-gnu", "docker-fifo-busybox", "docker-attach-busybox", "mounted")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "docker_host" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.docker)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if reason := config.stash.get(SKIPPED, None):
        terminalreporter.write_line(f"DOCKER TESTS WERE SKIPPED: {reason}", red=True, bold=True)


@pytest.fixture(scope="session")
def docker_host(pytestconfig: pytest.Config) -> Iterator[Host]:
    """Where a Docker Engine listens."""
    with contextlib.ExitStack() as stack:
        try:
            host = stack.enter_context(a_docker_host())
        except NoEngine as exc:
            if os.environ.get("BACKUPD_REQUIRE_DOCKER") == "1":
                pytest.fail(str(exc))
            pytestconfig.stash[SKIPPED] = str(exc)
            pytest.skip(str(exc))
        yield host


@pytest.fixture(scope="session")
def session_labels() -> Mapping[str, str]:
    """Containers and volumes that carry these are removed when the session ends."""
    return {TEST_LABEL: uuid.uuid4().hex}


@pytest.fixture(scope="session")
def docker_client(docker_host: Host, session_labels: Mapping[str, str]) -> Iterator[docker.DockerClient]:
    """The SDK's client, for arranging and looking."""
    client = docker.DockerClient(base_url=docker_host.url, version="auto", timeout=60)
    with contextlib.closing(client):
        yield client
        labels = [f"{key}={value}" for key, value in session_labels.items()]
        for container in client.containers.list(all=True, filters={"label": labels}):
            container.remove(force=True, v=True)
        for volume in client.volumes.list(filters={"label": labels}):
            volume.remove(force=True)


@pytest.fixture(scope="session")
def images(docker_host: Host) -> Iterator[Images]:
    """The test images; prefer the fixtures named after them."""
    with Images(docker_host) as found:
        yield found


@pytest.fixture(scope="session")
def alpine_image(images: Images) -> str:
    """BusyBox with its applets, like alpine."""
    return images.tag("alpine")


@pytest.fixture(scope="session")
def helper_image(images: Images) -> str:
    """GNU tar and what goes with it."""
    return images.tag("helper")


@pytest.fixture(scope="session")
def postgres_image(images: Images) -> str:
    """PostgreSQL, with an entrypoint like the official image's."""
    return images.tag("postgres")


@pytest.fixture(scope="session")
def redis_image(images: Images) -> str:
    """Redis, with an entrypoint like the official image's."""
    return images.tag("redis")


@pytest.fixture(scope="session")
def backupd_image(docker_host: Host) -> Iterator[str]:
    """The image that ships, made by the Dockerfile that ships."""
    with contextlib.closing(SidecarImage(docker_host)) as image:
        yield image.tag()


@pytest.fixture
def make_volume(docker_client: docker.DockerClient, session_labels: Mapping[str, str]) -> Iterator[Callable[..., str]]:
    """Call it for a new Docker volume's name; arguments: name, labels, driver_opts. All are removed in the end."""
    made: list[str] = []

    def make(name: str | None = None, labels: Mapping[str, str] | None = None, **rest: Any) -> str:
        full = name or f"backupd-test-{uuid.uuid4().hex[:12]}"
        made.append(full)
        docker_client.volumes.create(full, labels={**session_labels, **(labels or {})}, **rest)
        return full

    yield make
    for name in made:
        for container in docker_client.containers.list(all=True, filters={"volume": name}):
            container.remove(force=True, v=True)
        with contextlib.suppress(NotFound):
            docker_client.volumes.get(name).remove(force=True)


@pytest.fixture
def volume_root(docker_client: docker.DockerClient) -> Callable[[str], Path]:
    """The directory of a Docker volume as this process sees it."""

    def root(name: str) -> Path:
        path = Path(docker_client.volumes.get(name).attrs["Mountpoint"])
        try:
            path.stat()
        except OSError as exc:
            pytest.fail(f"the engine's volumes are not open to this process: {exc}")
        return path

    return root


@pytest.fixture
def run_container(
    docker_client: docker.DockerClient, session_labels: Mapping[str, str]
) -> Iterator[Callable[..., Any]]:
    """Start a container in the background (arguments as for `containers.run`); all are removed in the end."""
    started = []

    def run(image: str, command: Any = None, **rest: Any) -> Any:
        labels = {**session_labels, **rest.pop("labels", {})}
        container = docker_client.containers.create(image, command, labels=labels, **rest)
        started.append(container)
        container.start()
        return container

    yield run
    for container in started:
        with contextlib.suppress(NotFound):
            container.remove(force=True, v=True)


@pytest.fixture(scope="session")
def make_docker_engine(
    docker_host: Host, images: Images, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., DockerEngine]]:
    """Call it with DockerOptions' fields for a DockerEngine; all are closed when the session ends."""
    engines: list[DockerEngine] = []
    pipes = tmp_path_factory.mktemp("pipes")

    def make(**options: Any) -> DockerEngine:
        defaults: dict[str, Any] = {"host": docker_host.url, "pipe_directory": pipes}
        if "helper_image" not in options:
            defaults["helper_image"] = images.tag("helper")
        engines.append(DockerEngine(DockerOptions(**(defaults | options))))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


@pytest.fixture(scope="session")
def docker_engines(make_docker_engine: Callable[..., DockerEngine], images: Images) -> Callable[[str], DockerEngine]:
    """An engine a kind, made once: `docker-<transport>-<flavour>`. What it found out about its image is kept."""

    @functools.cache
    def get(kind: str) -> DockerEngine:
        _, transport, flavour = kind.split("-")
        image = images.tag("alpine" if flavour == "busybox" else "helper")
        return make_docker_engine(helper_image=image, transport=transport)

    return get


@pytest.fixture
def docker_engine(docker_engines: Callable[[str], DockerEngine]) -> DockerEngine:
    """Pipes and GNU tar."""
    return docker_engines("docker-fifo-gnu")


@pytest.fixture
def mounted_engine() -> Iterator[MountedEngine]:
    """Directories and the local tar."""
    engine = MountedEngine()
    yield engine
    engine.close()


@dataclass(frozen=True)
class EngineUnderTest:
    """An engine, and how to make volumes for it whose files the test can see.

    `place` tells a volume's directory on this machine; `new` makes an empty volume, with that directory.
    """

    name: str
    engine: Engine
    flavour: TarFlavour
    place: Callable[[Volume], Path]
    make: Callable[[], Volume]
    leftovers: Callable[[], list[str]]

    def new(self) -> tuple[Volume, Path]:
        volume = self.make()
        return volume, self.place(volume)


@pytest.fixture(
    params=[pytest.param(name, marks=[pytest.mark.docker] if name != "mounted" else []) for name in ENGINES]
)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EngineUnderTest]:
    """Every kind of engine in turn; after the test nothing of its jobs may be left."""
    kind: str = request.param
    if kind == "mounted":
        under_test = _mounted(request.getfixturevalue("mounted_engine"), tmp_path)
    else:
        under_test = _docker(kind, request)
    yield under_test
    assert under_test.leftovers() == []


def opened_up(directory: Path) -> None:
    """Let every user come at what is in a directory made by pytest, as they can in a container."""
    above = Path(tempfile.gettempdir()).resolve()
    for path in directory.resolve().parents:
        if path == above or above not in path.parents:
            break
        path.chmod(0o711)


def _mounted(engine: MountedEngine, tmp_path: Path) -> EngineUnderTest:
    def make() -> Volume:
        path = tmp_path / f"volume-{uuid.uuid4().hex[:8]}"
        path.mkdir()
        return engine.find(VolumeSpec(name="v", path=str(path)))

    def leftovers() -> list[str]:
        return [f"process {pid}" for pid in _children() if (Path("/proc") / pid / "comm").read_text() == "tar\n"]

    flavour = engine.tool().flavour
    return EngineUnderTest("mounted", engine, flavour, lambda volume: Path(volume.source), make, leftovers)


def _docker(kind: str, request: pytest.FixtureRequest) -> EngineUnderTest:
    client: docker.DockerClient = request.getfixturevalue("docker_client")
    make_volume = request.getfixturevalue("make_volume")
    engine: DockerEngine = request.getfixturevalue("docker_engines")(kind)
    root = request.getfixturevalue("volume_root")
    pipes = engine.options.pipe_directory

    def make() -> Volume:
        return engine.find(VolumeSpec(name="v", volume=make_volume()))

    def leftovers() -> list[str]:
        return [*helper_names(client), *(str(path) for path in pipes.glob("*.*") if path.suffix != ".lock")]

    return EngineUnderTest(
        kind,
        engine,
        "busybox" if kind.endswith("busybox") else "gnu",
        lambda volume: root(volume.source),
        make,
        leftovers,
    )


def helper_names(client: docker.DockerClient) -> list[str]:
    """The helper containers that there are, in whatever state."""
    try:
        found = client.containers.list(all=True, filters={"label": ["backupd.job"]})
        return [str(container.name) for container in found]
    except (NotFound, APIError):  # one went away while the SDK looked at it
        return helper_names(client)


def _children() -> list[str]:
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    return children.read_text().split()
