"""However a helper ends before its time, the job fails, says why and leaves nothing behind."""

from __future__ import annotations

import functools
import io
import os
import socket
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from backupd.engine import DockerEngine
from backupd.errors import BackupdError, EngineUnavailable, SourceError
from backupd.model import MIB, Volume, VolumeSpec
from tests.support.engines import helper_names

KINDS = ("docker-fifo-gnu", "docker-attach-gnu", "docker-fifo-busybox", "docker-attach-busybox")


@pytest.fixture(params=KINDS)
def engine(request: pytest.FixtureRequest, docker_engines: Callable[[str], DockerEngine]) -> DockerEngine:
    return docker_engines(request.param)


@pytest.fixture
def volume(docker_engine: DockerEngine, make_volume: Callable[..., str]) -> Volume:
    return docker_engine.find(VolumeSpec("v", volume=make_volume()))


@pytest.fixture
def full(volume: Volume, volume_root: Callable[[str], Path]) -> Volume:
    (volume_root(volume.source) / "big").write_bytes(os.urandom(32 * MIB))
    return volume


@pytest.fixture(autouse=True)
def nothing_left(docker_client: docker.DockerClient, docker_engine: DockerEngine) -> Iterator[None]:
    yield
    assert helper_names(docker_client) == []
    assert [path for path in docker_engine.options.pipe_directory.glob("*.*") if path.suffix != ".lock"] == []


def the_helper(client: docker.DockerClient) -> Any:
    (container,) = client.containers.list(filters={"label": ["backupd.job"]})
    return container


def read_on(output: Any) -> None:
    buffer = memoryview(bytearray(MIB))
    while output.readinto(buffer):
        pass


def test_reader_of_a_killed_helper(engine: DockerEngine, full: Volume, docker_client: docker.DockerClient) -> None:
    with engine.tar_out(full) as output:
        output.readinto(memoryview(bytearray(MIB)))
        meanwhile(the_helper(docker_client).kill)
        read_on(output)
        with pytest.raises(SourceError, match="killed by signal 9"):
            output.finish()


def meanwhile(act: Callable[[], object]) -> None:
    """The engine does not finish with a container before those who are attached to it have read all of its output."""
    threading.Thread(target=act).start()
    time.sleep(0.3)


def test_reader_of_a_removed_helper(engine: DockerEngine, full: Volume, docker_client: docker.DockerClient) -> None:
    with engine.tar_out(full) as output:
        output.readinto(memoryview(bytearray(MIB)))
        meanwhile(functools.partial(the_helper(docker_client).remove, force=True))
        read_on(output)
        with pytest.raises(SourceError, match=r"removed while it worked|killed by signal 9"):
            output.finish()


def test_writer_to_a_killed_helper(engine: DockerEngine, volume: Volume, docker_client: docker.DockerClient) -> None:
    block = bytes(MIB)
    with engine.tar_in(volume) as target:
        target.write(b"file" + bytes(120) + b"77777777777\0")
        the_helper(docker_client).kill()
        with pytest.raises(SourceError, match=r"killed by signal 9|ended early"):
            write_for_ever(target, block)


def write_for_ever(target: Any, block: bytes) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        target.write(block)
    pytest.fail("nobody noticed")


def test_helper_killed_before_finish(engine: DockerEngine, volume: Volume, docker_client: docker.DockerClient) -> None:
    with engine.tar_in(volume) as target:
        the_helper(docker_client).kill()
        with pytest.raises(SourceError, match="killed by signal 9"):
            target.finish()


def test_tar_killed_inside_of_the_helper(
    docker_engine: DockerEngine, full: Volume, docker_client: docker.DockerClient
) -> None:
    with docker_engine.tar_out(full) as output:
        output.readinto(memoryview(bytearray(MIB)))
        kill = (
            'for p in /proc/[0-9]*; do read name <$p/comm; [ "$name" != tar ] || kill -9 "${p#/proc/}"; done; echo done'
        )
        assert the_helper(docker_client).exec_run(["sh", "-c", kill]).output == b"done\n"
        read_on(output)
        with pytest.raises(SourceError, match="killed by signal 9"):
            output.finish()


@pytest.mark.parametrize("transport", ["fifo", "attach"])
def test_out_of_memory(make_docker_engine: Callable[..., DockerEngine], volume: Volume, transport: str) -> None:
    engine = make_docker_engine(transport=transport, memory_limit_bytes=16 * MIB)
    hungry = "x=$(head -c 60000000 /dev/zero | tr '\\0' a); echo ${#x}"
    with pytest.raises(SourceError, match=r"out of memory|killed by signal 9|Out of space|Cannot allocate"):
        engine.run_script(volume, hungry)


@pytest.mark.parametrize("transport", ["fifo", "attach", "auto"])
class TestNeverStarts:
    def test_no_such_image(
        self, make_docker_engine: Callable[..., DockerEngine], volume: Volume, transport: str
    ) -> None:
        engine = make_docker_engine(helper_image="backupd-test/no-such-image:1", transport=transport)
        with pytest.raises(SourceError, match="backupd-test/no-such-image:1") as caught:
            engine.tar_out(volume)
        assert caught.value.hint

    def test_image_without_a_shell(
        self,
        make_docker_engine: Callable[..., DockerEngine],
        volume: Volume,
        transport: str,
        bare_image: str,
    ) -> None:
        engine = make_docker_engine(helper_image=bare_image, transport=transport)
        with pytest.raises(SourceError, match="sh"):
            engine.tar_out(volume)


@pytest.fixture
def bare_image(docker_client: docker.DockerClient) -> Iterator[str]:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("file"))
    docker_client.api.import_image_from_data(target.getvalue(), repository="backupd-test/bare", tag="1")
    yield "backupd-test/bare:1"
    docker_client.images.remove("backupd-test/bare:1", force=True)


def test_start_fails_after_the_pipe_was_made(
    docker_engine: DockerEngine, full: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker_engine.tool()
    api = docker_engine._surroundings.api
    monkeypatch.setattr(api, "start", lambda name: (_ for _ in ()).throw(docker.errors.APIError("no room")))
    output = docker_engine.tar_out(full)
    with pytest.raises(SourceError, match="no room"):
        output.__enter__()


def test_helper_that_dies_before_it_opens_the_pipe(
    docker_engine: DockerEngine, full: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backupd.engine.docker.engine.OUT_BY_PIPE", "echo early >&2; exit 9")
    monkeypatch.setattr("backupd.engine.docker.engine.IN_BY_PIPE", "echo early >&2; exit 9")
    with docker_engine.tar_out(full) as output:
        assert output.readinto(memoryview(bytearray(MIB))) == 0
        with pytest.raises(SourceError, match="early"):
            output.finish()
    with pytest.raises(SourceError, match="early"):
        docker_engine.tar_in(full).__enter__()


def test_helper_that_says_nothing_and_ends_well(
    docker_engine: DockerEngine, full: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exit code of 0 is not enough, nor is a trailer with another job's nonce."""
    forged = 'exec 3>"$2"; cat /dev/zero | head -c 4096 >&3; printf "%-256s" "BACKUPD-END 1234 0" >&3'
    monkeypatch.setattr("backupd.engine.docker.engine.OUT_BY_PIPE", forged)
    with docker_engine.tar_out(full) as output:
        read_on(output)
        with pytest.raises(SourceError, match="ended early"):
            output.finish()


def test_reader_that_takes_its_time(docker_engine: DockerEngine, full: Volume) -> None:
    with docker_engine.tar_out(full) as output:
        output.readinto(memoryview(bytearray(MIB)))
        time.sleep(1.5)
        read_on(output)
        output.finish()


def test_no_engine(make_docker_engine: Callable[..., DockerEngine], tmp_path: Path) -> None:
    engine = make_docker_engine(host=f"unix://{tmp_path}/none.sock")
    with pytest.raises(EngineUnavailable, match="no such socket") as caught:
        engine.find(VolumeSpec("v", volume="x"))
    assert "DOCKER_HOST" in (caught.value.hint or "")


def test_socket_that_nobody_serves(make_docker_engine: Callable[..., DockerEngine], tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
    engine = make_docker_engine(host=f"unix://{tmp_path}/s")
    with pytest.raises(EngineUnavailable) as caught:
        engine.tool()
    assert "dockerd" in (caught.value.hint or "")


def test_engine_gone_in_the_middle(
    make_docker_engine: Callable[..., DockerEngine], full: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Judged without the engine's word, no job ends well."""
    engine = make_docker_engine()
    engine.tool()
    api = engine._surroundings.api

    def gone(*arguments: object, **named: object) -> None:
        raise docker.errors.DockerException("connection refused")

    with engine.tar_out(full) as output:
        read_on(output)
        with monkeypatch.context() as patch:
            patch.setattr(api, "wait", gone)
            with pytest.raises(EngineUnavailable):
                output.finish()


def test_interrupt_while_waiting_for_data(
    docker_engine: DockerEngine, full: Volume, docker_client: docker.DockerClient
) -> None:
    with docker_engine.tar_out(full) as output:
        output.readinto(memoryview(bytearray(MIB)))
        helper = the_helper(docker_client)
        helper.pause()
        threading.Timer(0.5, helper.kill).start()
        read_on(output)
        with pytest.raises(BackupdError, match="signal 9"):
            output.finish()
