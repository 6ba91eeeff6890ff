"""What confined jobs may read, and what is said where jobs are not confined."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from backupd.engine import confine
from backupd.engine.confine import PYTHON, TAR, confinement, unconfined, why_unconfined


@pytest.fixture
def asked_anew() -> Iterator[None]:
    why_unconfined.cache_clear()
    yield
    why_unconfined.cache_clear()


@pytest.fixture
def landlock() -> None:
    if said := unconfined():
        pytest.skip(said)


@pytest.mark.parametrize("version", [0, 1])
def test_a_kernel_that_cannot(asked_anew: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: int) -> None:
    """Jobs run as they are, and it is told once, not for each kind of job."""
    monkeypatch.setattr(confine, "landlock_version", lambda: version)
    assert unconfined() == "jobs are not confined: no Landlock here"
    with confinement([], PYTHON) as call:
        call((tmp_path / "file").touch)
    assert (tmp_path / "file").exists()


def test_a_kind_of_jobs_that_alone_cannot_be(
    landlock: None, asked_anew: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (tmp_path / "python").chmod(0o755)
    odd = replace(PYTHON, trial=(str(tmp_path / "python"), *PYTHON.trial[1:]))
    monkeypatch.setattr(confine, "PYTHON", odd)
    said = "copies of SQLite databases are not confined: Python or its libraries are in places where a confined job"
    assert (unconfined() or "").startswith(said)
    assert why_unconfined(TAR) is None


def test_a_program_that_is_nowhere_is_no_reason(landlock: None, asked_anew: None) -> None:
    assert why_unconfined(replace(TAR, trial=("/no/such/program",))) is None


def test_musl_says_in_a_file_of_its_own_where_libraries_are(
    landlock: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("etc", "volume"):
        (tmp_path / name).mkdir()
    path, other = tmp_path / "etc" / "ld-musl-x86_64.path", tmp_path / "etc" / "shadow"
    path.write_text("/usr/local/lib")
    other.write_text("secret")
    monkeypatch.setattr(confine, "_ETC", tmp_path / "etc")
    with confine._looked_up(str(tmp_path / "volume")) as root, confinement([root]) as call:
        assert call(path.read_text) == "/usr/local/lib"
        with pytest.raises(PermissionError):
            call(other.read_text)
