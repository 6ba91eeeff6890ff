"""Finding volumes, creating them again, knowing who uses them: on a real engine."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from backupd.engine import DockerEngine
from backupd.errors import SourceError, VolumeMissing
from backupd.model import Consumer, Volume, VolumeSpec

PROJECT = "com.docker.compose.project"
VOLUME = "com.docker.compose.volume"
MakeEngine = Callable[..., DockerEngine]
MakeVolume = Callable[..., str]


@pytest.fixture
def project() -> str:
    return f"project-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def engine(make_docker_engine: MakeEngine, project: str) -> DockerEngine:
    return make_docker_engine(project=project)


class TestFind:
    def test_by_compose_labels_whatever_the_name(
        self, engine: DockerEngine, make_volume: MakeVolume, project: str
    ) -> None:
        name = make_volume(labels={PROJECT: project, VOLUME: "data", "other": "x"})
        make_volume(labels={PROJECT: "another", VOLUME: "data"})
        found = engine.find(VolumeSpec("v", volume="data"))
        assert (found.name, found.kind, found.source, found.driver) == ("v", "volume", name, "local")
        assert found.labels["other"] == "x"

    def test_labels_before_an_equal_name(self, engine: DockerEngine, make_volume: MakeVolume, project: str) -> None:
        exact = make_volume(f"data-{uuid.uuid4().hex}")
        labelled = make_volume(labels={PROJECT: project, VOLUME: exact})
        assert engine.find(VolumeSpec("v", volume=exact)).source == labelled

    def test_exact_name(self, engine: DockerEngine, make_volume: MakeVolume) -> None:
        name = make_volume()
        assert engine.find(VolumeSpec("v", volume=name)).source == name

    def test_names_are_not_glued(self, engine: DockerEngine, make_volume: MakeVolume, project: str) -> None:
        make_volume(f"{project}_data")
        with pytest.raises(VolumeMissing) as caught:
            engine.find(VolumeSpec("v", volume="data"))
        assert f"{project}_data" in (caught.value.hint or "")

    def test_hint_names_the_other_project(self, engine: DockerEngine, make_volume: MakeVolume) -> None:
        wanted = f"data{uuid.uuid4().hex}"
        make_volume(labels={PROJECT: "elsewhere", VOLUME: wanted})
        with pytest.raises(VolumeMissing) as caught:
            engine.find(VolumeSpec("v", volume=wanted))
        assert "project elsewhere" in (caught.value.hint or "")

    def test_two_that_fit(self, engine: DockerEngine, make_volume: MakeVolume, project: str) -> None:
        for _ in range(2):
            make_volume(labels={PROJECT: project, VOLUME: "data"})
        with pytest.raises(SourceError, match="could be any of"):
            engine.find(VolumeSpec("v", volume="data"))


def test_create_as_recorded_without_the_config_hash(
    engine: DockerEngine, make_volume: MakeVolume, docker_client: docker.DockerClient
) -> None:
    options = {"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}
    labels = {PROJECT: "p", VOLUME: "v", "com.docker.compose.config-hash": "abc", "com.docker.compose.version": "5"}
    name = make_volume(labels=labels, driver_opts=options)
    recorded = engine.find(VolumeSpec("v", volume=name))
    docker_client.volumes.get(name).remove()
    engine.create(recorded)
    again = engine.inspect(recorded)
    assert again is not None
    assert again.options == options
    assert dict(again.labels) == {
        key: value for key, value in recorded.labels.items() if key != "com.docker.compose.config-hash"
    }


class TestDirectories:
    def test_missing_directory_is_not_created(self, engine: DockerEngine, tmp_path: Path) -> None:
        with pytest.raises(VolumeMissing, match="no directory"):
            engine.find(VolumeSpec("v", path=str(tmp_path / "none")))
        with pytest.raises(VolumeMissing):
            engine.tar_out(Volume(name="v", kind="bind", source=str(tmp_path / "none"))).__enter__()
        assert not (tmp_path / "none").exists()

    def test_file_is_no_directory(self, engine: DockerEngine, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(VolumeMissing):
            engine.find(VolumeSpec("v", path=str(tmp_path / "file")))

    def test_round_trip(self, engine: DockerEngine, tmp_path: Path) -> None:
        (tmp_path / "from").mkdir()
        (tmp_path / "from/f").write_text("x")
        volume = engine.find(VolumeSpec("v", path=str(tmp_path / "from")))
        assert volume == Volume(name="v", kind="bind", source=str(tmp_path / "from"))
        copy = Volume(name="v", kind="bind", source=str(tmp_path / "to/deep"))
        engine.create(copy)
        buffer = memoryview(bytearray(1 << 20))
        with engine.tar_out(volume) as output, engine.tar_in(copy) as target:
            while count := output.readinto(buffer):
                target.write(buffer[:count])
            output.finish()
            target.finish()
        assert (tmp_path / "to/deep/f").read_text() == "x"
        with pytest.raises(SourceError, match="cannot remove"):
            engine.remove(copy)
        (tmp_path / "to/deep/f").unlink()
        engine.remove(copy)
        engine.remove(copy)
        assert not (tmp_path / "to/deep").exists()

    def test_directory_of_the_mounted_engine(self, engine: DockerEngine) -> None:
        with pytest.raises(SourceError, match="mounted engine"):
            engine.tar_in(Volume(name="v", kind="directory", source="/x"))


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "shared/below").mkdir(parents=True)
    return tmp_path / "shared"  # type: ignore[return-value]


class TestConsumers:
    def test_of_a_volume(
        self,
        engine: DockerEngine,
        make_volume: MakeVolume,
        run_container: Callable[..., Any],
        alpine_image: str,
        volume_root: Callable[[str], Path],
    ) -> None:
        name = make_volume()
        volume = engine.find(VolumeSpec("v", volume=name))
        assert engine.consumers(volume) == []
        sleep = ["sleep", "60"]
        writer = run_container(alpine_image, sleep, volumes={name: {"bind": "/d", "mode": "rw"}})
        reader = run_container(alpine_image, sleep, volumes={name: {"bind": "/d", "mode": "ro"}})
        paused = run_container(alpine_image, sleep, volumes={name: {"bind": "/d", "mode": "rw"}})
        paused.pause()
        inside = run_container(alpine_image, sleep, volumes={str(volume_root(name)): {"bind": "/d", "mode": "rw"}})
        stopped = run_container(alpine_image, sleep, volumes={name: {"bind": "/d", "mode": "rw"}})
        stopped.kill()
        run_container(alpine_image, sleep, volumes={make_volume(): {"bind": "/d", "mode": "rw"}})
        run_container(alpine_image, sleep, volumes={str(volume_root(name).parents[1]): {"bind": "/all", "mode": "rw"}})
        expected = {
            Consumer(writer.name, alpine_image, writable=True),
            Consumer(reader.name, alpine_image, writable=False),
            Consumer(paused.name, alpine_image, writable=True),
            Consumer(inside.name, alpine_image, writable=True),
        }
        assert set(engine.consumers(volume)) == expected

    def test_of_a_directory(
        self, engine: DockerEngine, directory: Path, run_container: Callable[..., Any], alpine_image: str
    ) -> None:
        volume = Volume(name="v", kind="bind", source=str(directory))
        found = [
            run_container(alpine_image, ["sleep", "60"], volumes={str(path): {"bind": "/d", "mode": "ro"}}).name
            for path in (directory, directory / "below", directory.parent)
        ]
        (directory.parent / "shared-not").mkdir()
        run_container(
            alpine_image, ["sleep", "60"], volumes={str(directory.parent / "shared-not"): {"bind": "/d", "mode": "ro"}}
        )
        assert {consumer.name for consumer in engine.consumers(volume)} == set(found)

    def test_helpers_are_none(
        self, engine: DockerEngine, make_volume: MakeVolume, volume_root: Callable[[str], Path]
    ) -> None:
        volume = engine.find(VolumeSpec("v", volume=make_volume()))
        (volume_root(volume.source) / "big").write_bytes(os.urandom(8 << 20))
        with engine.tar_in(volume):
            assert engine.consumers(volume) == []


def test_empty_volume_stays_empty(
    make_docker_engine: MakeEngine, make_volume: MakeVolume, volume_root: Callable[[str], Path], redis_image: str
) -> None:
    """The image has a /data of its own, which Docker would copy into a fresh volume."""
    engine = make_docker_engine(helper_image=redis_image)
    volume = engine.find(VolumeSpec("v", volume=make_volume()))
    assert engine.run_script(volume, "ls -A") == ""
    assert volume_root(volume.source).stat().st_uid == 0
