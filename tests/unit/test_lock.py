"""Locks of volumes and services: one holder, whoever dies, and no files left."""

from __future__ import annotations

import os
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from backupd import lock as lock_module
from backupd.errors import LockedError
from backupd.lock import drill_lock, remove_unlocked, service_lock, volume_lock
from backupd.model import Volume
from tests.support.staged_services import a_service

VOLUME = Volume(name="v", kind="volume", source="v")


def test_a_file_only_while_it_is_held(tmp_path: Path) -> None:
    with volume_lock(tmp_path, VOLUME), drill_lock(tmp_path, "d"):
        assert len(list(tmp_path.iterdir())) == 2
        with pytest.raises(LockedError, match=str(os.getpid())), volume_lock(tmp_path, VOLUME):
            pass
        remove_unlocked(tmp_path)
        assert len(list(tmp_path.iterdir())) == 2
    assert list(tmp_path.iterdir()) == []


def test_files_of_the_dead_are_removed(tmp_path: Path) -> None:
    if (child := os.fork()) == 0:
        held = volume_lock(tmp_path, VOLUME)
        held.__enter__()
        os._exit(0)
    os.waitpid(child, 0)
    assert len(list(tmp_path.iterdir())) == 1
    remove_unlocked(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_never_two_although_files_come_and_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each waits for the file that another one is about to remove; a sweeper removes what it can besides."""
    monkeypatch.setattr(lock_module, "_POLL_SECONDS", 0.0005)
    service = a_service("db")
    inside: list[int] = []
    seen: Counter[int] = Counter()
    done = threading.Event()

    def work(number: int) -> None:
        for _ in range(60):
            with service_lock(tmp_path, service):
                inside.append(number)
                seen[len(inside)] += 1
                inside.remove(number)

    def sweep() -> None:
        while not done.is_set():
            remove_unlocked(tmp_path)

    with ThreadPoolExecutor(5) as pool:
        sweeper = pool.submit(sweep)
        workers = [pool.submit(work, number) for number in range(4)]
        for worker in workers:
            worker.result()
        done.set()
        sweeper.result()
    assert seen == {1: 240}
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_no_reason_not_to_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with volume_lock(tmp_path, VOLUME), pytest.raises(LockedError), volume_lock(tmp_path, VOLUME):
        pass
