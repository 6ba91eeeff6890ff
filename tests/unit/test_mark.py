"""Marks: a living process's is never taken for a dead one's."""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

import pytest

from backupd.mark import Marks


def test_from_before_it_has_its_name_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marks, others = Marks(tmp_path / "marks"), Marks(tmp_path / "marks")
    lock = fcntl.flock
    looks = []

    def looked_at(descriptor: int, operation: int) -> None:
        if operation & fcntl.LOCK_EX:  # it is there, and not locked yet
            looks.append(([*others.names()], others.is_dead("one")))
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", looked_at)
    mark = marks.make("one")
    assert looks == [([], False)]
    assert [*others.names()] == ["one"]
    assert not others.is_dead("one")
    assert stat.S_IMODE(mark.path.stat().st_mode) == 0o600
    mark.close(keep=True)
    assert others.is_dead("one")
    others.forget("one")
    assert [*others.names()] == []
    assert not others.is_dead("one")


def test_several_may_ask_at_once(tmp_path: Path) -> None:
    marks = Marks(tmp_path)
    marks.make("one").close(keep=True)
    descriptor = os.open(tmp_path / "one", os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)  # somebody is asking
    assert marks.is_dead("one")
    os.close(descriptor)
