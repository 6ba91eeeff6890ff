"""Prune and backups as processes of their own on one store, undisturbed and killed at random."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from backupd.errors import LockedError
from backupd.model import FullEvery, KeepPolicy, VolumeSpec
from backupd.prune.operation import prune
from backupd.prune.outline import PruneRequest
from backupd.prune.rules import Rules
from backupd.stores.local import LocalStore
from backupd.verify.verifier import Verifier
from backupd.wiring import SystemClock, new_id
from tests.support.pruning import check_all_that_is_listed, unreferenced
from tests.support.runtime import Place, RecordingProgress

ROOT = Path(__file__).parents[2]
COMMAND = """
import sys, pathlib, tests.faults.test_prune_processes as t
getattr(t, sys.argv[1])(pathlib.Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
"""
SECOND = timedelta(seconds=1)
RULES = Rules({"nightly": (KeepPolicy(last=2), "UTC")}, SECOND, SECOND)
LOCKED = 11


def a_place(base: Path, name: str, host: str, wait: timedelta = 60 * SECOND) -> Place:
    """`host` has a state directory of its own."""
    place = Place(base, stores=[LocalStore("one", base / "one")], names=(name,), full_every=FullEvery(2 * SECOND))
    place.runtime = replace(
        place.runtime, clock=SystemClock(), new_id=new_id, state=base / f"state-{host}", host=host, lock_wait=wait
    )
    return place


def back_up_often(base: Path, name: str, times: int) -> None:
    place = a_place(base, name, "writer")
    for turn in range(times):
        (place.root(name) / f"{turn % 7}").write_bytes(os.urandom(40_000))
        assert place.backup().complete


def prune_often(base: Path, name: str, times: int) -> None:
    place = a_place(base, name, "pruner", wait=timedelta())
    done = 0
    while done < times:
        try:
            prune(place.repository(), PruneRequest(RULES), place.runtime)
            done += 1
        except LockedError:
            time.sleep(random.random() / 20)


def spawn(base: Path, action: str, name: str, times: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-X", "faulthandler", "-c", COMMAND, action, str(base), name, str(times)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
    )


def begin(base: Path) -> None:
    for name in ("a", "b"):
        (base / "volumes" / name).mkdir(parents=True)
        place = a_place(base, name, "writer")
        (place.root(name) / "first").write_bytes(os.urandom(100_000))
        place.backup()


def finish(base: Path) -> None:
    """Whatever has happened: what is listed is whole, and a last prune leaves nothing over."""
    store = LocalStore("one", base / "one")
    assert check_all_that_is_listed(store)
    time.sleep(1.1)
    for host in ("writer", "pruner"):  # each lets go of what its own processes left
        a_place(base, "a", host).runtime.leases(store).release_dead()
    place = a_place(base, "a", "pruner")
    pruned = prune(place.repository(), PruneRequest(RULES), place.runtime)
    assert unreferenced(store) == []
    held = [manifest.volumes for manifest in pruned.outline.kept]
    assert {sum(name in volumes for volumes in held) for name in ("a", "b")} <= {1, 2}
    check_all_that_is_listed(store)


def wait_for_activity(store: LocalStore) -> None:
    """Starting takes a while on a busy machine: until there are two snapshots more or less than there were."""
    before = {info.key for info in store.list("snapshots/")}
    for _ in range(1000):
        if len(before ^ {info.key for info in store.list("snapshots/")}) >= 2:
            return
        time.sleep(0.05)
    pytest.fail("nothing happened")


@pytest.mark.slow
def test_at_once(tmp_path: Path) -> None:
    begin(tmp_path)
    processes = [spawn(tmp_path, "back_up_often", name, 12) for name in ("a", "b")]
    processes += [spawn(tmp_path, "prune_often", "a", 4), spawn(tmp_path, "prune_often", "b", 4)]
    for process in processes:
        _, said = process.communicate(timeout=200)
        assert process.returncode == 0, said.decode()
    finish(tmp_path)


@pytest.mark.slow
def test_killed_at_random(tmp_path: Path) -> None:
    begin(tmp_path)
    rng = random.Random(7)
    store = LocalStore("one", tmp_path / "one")
    seen: set[str] = set()
    for _ in range(10):
        processes = [spawn(tmp_path, "back_up_often", "a", 1000), spawn(tmp_path, "back_up_often", "b", 1000)]
        processes.append(spawn(tmp_path, "prune_often", "a", 1000))
        wait_for_activity(store)
        time.sleep(2 * rng.random())
        for process in processes:
            process.kill()
            process.communicate()
        seen |= set(check_all_that_is_listed(store))
        for host in ("writer", "pruner"):
            a_place(tmp_path, "a", host).runtime.leases(store).release_dead()
    finish(tmp_path)
    assert len(seen) > 10, "they did get something done"


def verify_often(base: Path, name: str, times: int) -> None:
    """As `backupd verify --read-data` does. What is pruned meanwhile is gone, not damaged."""
    for _ in range(times):
        repository = a_place(base, name, "reader").repository()
        manifests, damaged = repository.snapshots()
        assert damaged == []
        findings = Verifier(repository, RecordingProgress(), 1.0, random.Random(0)).verify(manifests)
        problems = [finding for finding in findings if finding.problem]
        left = repository.snapshot_ids()
        assert [finding for finding in problems if finding.snapshot in left] == []


def restore_often(base: Path, name: str, times: int) -> None:
    """As `backupd restore latest --to-dir` does."""
    place = a_place(base, name, "reader")
    for turn in range(times):
        manifest = place.repository().resolve("latest", [name])
        target = base / f"out-{name}-{turn}"
        place.restore(manifest, into=VolumeSpec("--to-dir", path=str(target)), volumes=(name,))
        assert (target / "first").stat().st_size == 100_000


@pytest.mark.slow
def test_two_that_write_and_three_that_are_asked(tmp_path: Path) -> None:
    """Two hosts' daemons take snapshots of a volume each; somebody prunes, somebody verifies, somebody restores."""
    begin(tmp_path)
    processes = [spawn(tmp_path, "back_up_often", name, 10) for name in ("a", "b")]
    processes += [spawn(tmp_path, "prune_often", "a", 3), spawn(tmp_path, "verify_often", "a", 4)]
    processes.append(spawn(tmp_path, "restore_often", "b", 4))
    for process in processes:
        _, said = process.communicate(timeout=600)
        assert process.returncode == 0, said.decode()
    finish(tmp_path)
