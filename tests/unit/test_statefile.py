"""Files of the state directory are their owner's alone, whatever the umask, and whoever made the directory."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from backupd.errors import StoreDenied
from backupd.history import History, Run
from backupd.journal import HoldAct, Journal
from backupd.known import KnownRepositories
from backupd.mark import Marks
from backupd.model import ObjectInfo
from backupd.repository import Repository, keep_drill
from backupd.statefile import locked, write_private
from backupd.status import DaemonStatus, StatusFile
from backupd.stores.memory import MemoryStore
from backupd.stores.s3.options import S3Options
from backupd.stores.s3.probe import Capabilities
from backupd.stores.s3.remembered import Remembered
from tests.support.drills import record
from tests.support.runtime import BEGIN, Place, TickingClock


@pytest.fixture(autouse=True)
def generous() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


class Denying(MemoryStore):
    def put(self, key: str, data: bytes) -> ObjectInfo:
        raise StoreDenied(f"{key}, {len(data)} bytes")


def test_modes(tmp_path: Path) -> None:
    place = Place(tmp_path / "place")
    place.root().mkdir(parents=True)
    place.backup()
    config = place.repository().config
    state = tmp_path / "state"
    state.mkdir()
    History(state).put(Run(id="0" * 16, kind="backup", started=BEGIN))
    Journal(state).begin(HoldAct(service="s", name="s", how="stop"), BEGIN)
    KnownRepositories(state).remember("one", "0" * 16)
    StatusFile(state).write(DaemonStatus(process="p", program="b", started=BEGIN, beat=BEGIN, configured=BEGIN))
    Remembered(state / "s3" / "one", S3Options(bucket="bucket"), TickingClock()).remember(
        Capabilities(conditional_put=True), checksums=True
    )
    keep_drill(Repository(Denying("one"), config, 2), record(), state)
    Marks(state / "marks").make("one").close(keep=True)
    write_private(state / "file", b"")
    with locked(state / "file"):
        pass
    found = {path.relative_to(state).as_posix(): path.stat().st_mode for path in state.rglob("*")}
    assert {"history.sqlite", "journal.sqlite", "stores.json", "daemon.json", "s3/one", "marks/one"} <= found.keys()
    modes = {name: stat.S_IMODE(mode) for name, mode in found.items() if stat.S_ISREG(mode)}
    assert modes == dict.fromkeys(modes, 0o600)
