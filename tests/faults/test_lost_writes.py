"""A disk that takes what is written and then loses it: tar has no complaints, and the flush has one, once."""

from __future__ import annotations

import errno
import os
import subprocess
import tarfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from backupd.engine.writeback import PAUSE_SECONDS
from backupd.errors import SourceError
from backupd.model import MIB, Volume, VolumeSpec
from tests.support.engines import EngineUnderTest
from tests.support.filesystems import NoFilesystem, device, filesystem
from tests.support.runtime import Place
from tests.support.tars import python_tar

REAL, CLAIMED, WRITTEN = 24, 64, 32
"""The disk's MiB in truth and as it says, and what is to be kept there."""


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A directory in which a disk's image finds less room than it claims to have."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    place = tmp_path / "small"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={REAL}m", "small", str(place)], check=False).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        try:
            with device("ext4", place, REAL // 2):
                pass
        except NoFilesystem as exc:
            pytest.skip(f"no disk that loses anything: {exc}")
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@contextmanager
def lossy(engine: EngineUnderTest, small: Path, request: pytest.FixtureRequest) -> Iterator[Volume]:
    with ExitStack() as stack:
        if engine.name == "mounted":
            place = stack.enter_context(filesystem("ext4", small, CLAIMED))
            yield Volume(name="v", kind="directory", source=str(place))
        else:
            name = stack.enter_context(device("ext4", small, CLAIMED))
            client, labels = (request.getfixturevalue(fixture) for fixture in ("docker_client", "session_labels"))
            made = client.volumes.create(driver_opts={"type": "ext4", "device": name}, labels=labels)
            stack.callback(made.remove)
            yield Volume(name="v", kind="volume", source=made.name)


@pytest.mark.parametrize("meanwhile", [True, False])
def test_a_restore_fails(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, meanwhile: bool) -> None:
    if not meanwhile:  # then the flush at the end hears of it
        monkeypatch.setattr("backupd.engine.writeback._error_of_flush", lambda _: errno.ENOSYS)
    place = Place(tmp_path / "place")
    place.root().mkdir(parents=True)
    (place.root() / "large").write_bytes(os.urandom(WRITTEN * MIB))
    taken = place.backup().manifest
    with (
        filesystem("ext4", small, CLAIMED) as disk,
        pytest.raises(SourceError, match=r"the restore failed .*(is full|did not reach the disk)"),
    ):
        place.restore(taken, into=VolumeSpec("new", path=str(disk / "new")))


def test_a_flush_meanwhile_is_not_the_only_one_to_hear_of_it(
    engine: EngineUnderTest, small: Path, request: pytest.FixtureRequest
) -> None:
    stream = python_tar((tarfile.TarInfo(str(number)), os.urandom(MIB)) for number in range(WRITTEN))
    with lossy(engine, small, request) as volume, engine.engine.tar_in(volume, "new", kept=True) as target:
        target.write(stream[:-MIB])
        time.sleep(4 * PAUSE_SECONDS)
        with pytest.raises(SourceError, match=r"did not reach the disk|Read-only file system"):  # noqa: PT012
            target.write(stream[-MIB:])
            target.finish()
