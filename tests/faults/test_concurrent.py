"""Processes that use one repository at the same time."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

from backupd.backup import BackupResult
from backupd.errors import LockedError
from backupd.stores.local import LocalStore
from backupd.verify.verifier import Verifier
from tests.support.runtime import CountingIds, Place, RecordingProgress

ROOT = Path(__file__).parents[2]
COMMAND = """
import sys, pathlib, tests.faults.test_concurrent as t
t.back_up_often(pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
"""
LOCKED = 11


def a_place(base: Path, name: str, number: int) -> Place:
    place = Place(base, stores=[LocalStore(store, base / store) for store in ("one", "two")], names=(name,))
    ids = place.runtime.new_id
    assert isinstance(ids, CountingIds)
    ids.prefix = (number + 1) << 24
    return place


def back_up_often(base: Path, name: str, number: int, times: int) -> None:
    place = a_place(base, name, number)
    locked = 0
    for turn in range(times):
        if number % 2 == 0:
            (place.root(name) / f"{number}-{turn}").write_bytes(os.urandom(50_000))
        try:
            result: BackupResult = place.backup()
        except LockedError:
            locked += 1
            time.sleep(0.05)
        else:
            assert result.complete, result
    sys.exit(LOCKED if locked == times else 0)


def spawn(base: Path, name: str, number: int, times: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-X", "faulthandler", "-c", COMMAND, str(base), name, str(number), str(times)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
    )


def check_while(base: Path, writers: list[subprocess.Popen[bytes]]) -> int:
    """Read all there is until the writers are done; how often that was."""
    rounds = 0
    while True:
        running = any(writer.poll() is None for writer in writers)
        for number in (0, 1):
            place = a_place(base, "a", 9)
            if not any(place.stores[number].list("backupd.json")):
                continue
            repository = place.repository(number)
            manifests, damaged = repository.snapshots()
            assert damaged == []
            findings = Verifier(repository, RecordingProgress(), 1.0, random.Random(0)).verify(manifests)
            assert [finding for finding in findings if finding.problem] == []
        rounds += 1
        if not running:
            return rounds


def finish(writers: list[subprocess.Popen[bytes]]) -> list[int]:
    codes = []
    for writer in writers:
        _, said = writer.communicate()
        assert writer.returncode in (0, LOCKED), said.decode()
        codes.append(writer.returncode)
    return codes


def test_different_volumes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "volumes" / name).mkdir(parents=True)
    writers = [spawn(tmp_path, name, number, 5) for number, name in enumerate(("a", "b"))]
    assert check_while(tmp_path, writers) > 1
    assert finish(writers) == [0, 0]
    place = a_place(tmp_path, "a", 8)
    assert len(place.repository(0).snapshot_ids()) == 10
    for name in ("a", "b"):
        newest = next(m for m in place.repository(0).snapshots()[0] if m.archive(name))
        archive = newest.archive(name)
        assert archive is not None
        held = {member.path for member in place.repository(0).files(archive)}
        assert {path.name for path in (tmp_path / "volumes" / name).iterdir()} <= held


def test_same_volume(tmp_path: Path) -> None:
    (tmp_path / "volumes" / "a").mkdir(parents=True)
    writers = [spawn(tmp_path, "a", number, 5) for number in (1, 3)]
    assert check_while(tmp_path, writers) > 1
    assert 0 in finish(writers)
    assert len(a_place(tmp_path, "a", 8).repository(0).snapshot_ids()) > 0
