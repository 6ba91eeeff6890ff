"""File systems that share blocks between files: services stand while these are cloned, not while they are read."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from backupd.backup import back_up
from backupd.clone import Clone
from backupd.engine import DockerEngine
from backupd.journal import Journal
from backupd.model import Plan, Volume, VolumeSpec
from backupd.ports import TarOutput
from backupd.recover import recover
from backupd.stores.memory import MemoryStore
from tests.support.filesystems import NoFilesystem, device, filesystem
from tests.support.runtime import Place, RecordingProgress, fill, make_runtime
from tests.support.services import FakeServices, service
from tests.support.stacks import WRITER, longest_gap, wait_until
from tools.fingerprint import fingerprint


@pytest.fixture(params=["xfs", "btrfs"])
def mounted(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    try:
        with filesystem(request.param, tmp_path) as place:
            yield place
    except NoFilesystem as exc:
        warnings.warn(pytest.PytestWarning(f"clones are not tested on {request.param}: {exc}"), stacklevel=1)
        pytest.skip(f"CLONES ARE NOT TESTED: {exc}")


@pytest.fixture
def place(mounted: Path) -> Place:
    place = Place(mounted, consistency="pause")
    fill(place.root())
    (place.root() / ".hidden").write_text("hidden")
    os.mkfifo(place.root() / "fifo")
    os.setxattr(place.root() / "text", "user.of", b"a file")
    os.chown(place.root() / "text", 4711, 815)
    return place


@pytest.fixture
def services(place: Place) -> FakeServices:
    place.runtime.engine.services = services = FakeServices()
    services.add(service("app", str(place.root())))
    return services


def changing(place: Place, services: FakeServices, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """From when tar begins on a clone, everything changes; returns what was read, and how the service was."""
    tar_out = place.runtime.engine.tar_out
    seen: list[tuple[str, str]] = []

    def reading(volume: Volume, exclude: Sequence[str] = (), subdirectory: str = "") -> TarOutput:
        seen.append((subdirectory, services.containers["id-app"].state))
        if subdirectory:
            (place.root() / "text").write_text("changed after the moment")
            (place.root() / "sub" / "file").unlink()
            (place.root() / "late").touch()
        return tar_out(volume, exclude, subdirectory)

    monkeypatch.setattr(place.runtime.engine, "tar_out", reading)
    return seen


@pytest.mark.parametrize("together", [False, True])
def test_what_is_read_is_of_the_moment(
    place: Place, services: FakeServices, monkeypatch: pytest.MonkeyPatch, together: bool
) -> None:
    place.together = together
    before = fingerprint(place.root())
    seen = changing(place, services, monkeypatch)
    result = place.backup()
    assert result.complete
    assert [state for _, state in seen] == ["running", "running"], "nothing stands while tar reads"
    assert [name.startswith(".backupd-clone-") for name, _ in seen] == [False, True]
    assert services.acts == ["pause app", "unpause app"]
    assert [path.name for path in place.root().glob(".backupd-*")] == []
    assert Journal(place.runtime.state).open_acts() == []
    place.restore(result.manifest, safety_snapshot=False, force=True)
    assert fingerprint(place.root()) == before


def test_the_volume_is_as_it_was_afterwards(place: Place, services: FakeServices) -> None:
    before = fingerprint(place.root())
    time.sleep(0.05)
    place.backup()
    assert fingerprint(place.root()) == before


def test_what_a_kill_leaves_is_removed(place: Place, services: FakeServices) -> None:
    before = fingerprint(place.root())
    volume = place.runtime.engine.find(place.spec())
    for lost in (False, True):
        clone = Clone(place.runtime, volume)
        clone.__enter__()
        assert clone.take()
        assert [path.name for path in place.root().glob(".backupd-clone-*/text")] == ["text"]
        left = next(place.root().glob(".backupd-clone-*")).name
        if lost:
            (place.runtime.state / "journal.sqlite").unlink()
        said = recover(place.runtime, [place.spec()])
        assert [found.outcome for found in said] == [f"{left}, left by a backup that died, is removed"]
        assert fingerprint(place.root()) == before


def test_leftovers_are_not_backed_up(place: Place, services: FakeServices) -> None:
    Clone(place.runtime, place.runtime.engine.find(place.spec())).__enter__()
    manifest = place.backup().manifest
    files = [member.path for member in place.repository().files(manifest.archives[0])]
    assert not any("clone" in str(path) for path in files)


def test_no_room_for_it(place: Place, services: FakeServices, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clone that fails is read around, at a standstill, and leaves nothing."""
    monkeypatch.setattr("backupd.clone._TAKE", 'cp -a --reflink=always ./text "$1"; echo no room >&2; exit 1')
    seen = changing(place, services, monkeypatch)
    assert place.backup().complete
    assert seen[-1] == ("", "paused")
    assert any("no room" in note for note in place.notes)
    assert [path.name for path in place.root().glob(".backupd-*")] == []


@pytest.mark.docker
@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_a_writer_in_docker(
    kind: str,
    docker_engine: DockerEngine,
    run_container: Callable[..., Any],
    make_volume: Callable[..., str],
    helper_image: str,
    tmp_path: Path,
) -> None:
    """It stands for less time than reading its volume takes."""
    with ExitStack() as stack:
        try:
            name = stack.enter_context(device(kind, tmp_path))
        except NoFilesystem as exc:
            pytest.skip(f"CLONES ARE NOT TESTED: {exc}")
        volume = make_volume(driver_opts={"type": kind, "device": name})
        command = [*WRITER[:2], f"head -c 64M /dev/urandom >/srv/data; {WRITER[2]}"]
        writer = run_container(helper_image, command, volumes=[f"{volume}:/srv"], init=True)
        stack.callback(writer.remove, force=True)

        def log() -> str:
            return str(writer.exec_run(["cat", "/srv/log"]).output.decode())

        wait_until(lambda: writer.exec_run(["test", "-e", "/srv/log"]).exit_code == 0)
        runtime, store = make_runtime(tmp_path / "state", docker_engine), MemoryStore("local")
        spec = VolumeSpec("data", volume=volume, consistency="pause", said=frozenset({"consistency"}))
        assert back_up(Plan("p", (spec,), ("local",)), runtime, [store]).complete
        (archive,) = back_up(Plan("p", (spec,), ("local",)), runtime, [store]).manifest.archives
        time.sleep(0.2)
        (tmp_path / "log").write_text(log())
        left = writer.exec_run(["ls", "-A", "/srv"]).output.decode().split()
    gap = longest_gap(tmp_path / "log")
    assert abs(archive.downtime[writer.name] - gap) < 1
    assert archive.warnings == [], "a clone does not move"
    assert set(left) <= {"data", "log", "lost+found"}
    assert isinstance(runtime.progress, RecordingProgress)
    assert not any("not cloned" in note for note in runtime.progress.notes)


def test_other_file_systems_are_left_alone(tmp_path: Path) -> None:
    try:
        with filesystem("ext4", tmp_path, megabytes=64) as mounted:
            place = Place(mounted, consistency="pause")
            fill(place.root())
            place.runtime.engine.services = services = FakeServices()
            services.add(service("app", str(place.root())))
            before = place.root().stat().st_ctime_ns
            assert place.backup().complete
            assert place.root().stat().st_ctime_ns == before
    except NoFilesystem as exc:
        pytest.skip(str(exc))
