"""Which files are taken for SQLite databases, and which are left alone."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backupd.consistency.sqlite_files import databases, is_excluded, is_header, looks_like_one
from backupd.consistency.streams import pattern


@pytest.mark.parametrize("page", [512, 1024, 4096, 65536])
@pytest.mark.parametrize("mode", ["delete", "wal"])
@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16le"])
def test_every_kind_of_database(tmp_path: Path, page: int, mode: str, encoding: str) -> None:
    path = tmp_path / "x"
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"PRAGMA page_size = {page}")
        database.execute(f"PRAGMA encoding = '{encoding}'")
        database.execute(f"PRAGMA journal_mode = {mode}")
        database.execute("PRAGMA auto_vacuum = FULL")
        database.execute("CREATE TABLE t (a)")
        database.commit()
    assert looks_like_one(str(path))


@given(st.binary(max_size=90))
def test_other_files_are_none(data: bytes) -> None:
    assert not is_header(b"SQLite format 3\0" + data[:7])
    assert is_header(b"SQLite format 3\0\x10\0\1\1\0\x40\x20\x20" + data[24:])


def test_what_is_walked(tmp_path: Path) -> None:
    for name in ("a.db", "sub/deep/b", ".backupd-restore-1/c", ".backupd-clone-1/f", "sub/.backupd-old-1/d", "cache/e"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(tmp_path / name)) as database:
            database.execute("CREATE TABLE t (a)")
    (tmp_path / "link").symlink_to("a.db")
    (tmp_path / "loop").symlink_to(".")
    os.mkfifo(tmp_path / "fifo")
    assert sorted(databases(str(tmp_path), ["cache"])) == ["a.db", "sub/.backupd-old-1/d", "sub/deep/b"]


@pytest.mark.parametrize(
    ("path", "patterns", "expected"),
    [
        ("a/b.db", ["*.db"], True),
        ("a/b.db", ["a"], True),
        ("a/b.db", ["/a"], True),
        ("a/b.db", ["/b.db"], False),
        ("a/b.db", ["./a/*.db"], True),
        ("a/c/b.db", ["a/*.db"], False),
        ("a/c/b.db", ["a/c/"], True),
        ("a", ["a/b"], False),
    ],
)
def test_exclude(path: str, patterns: list[str], expected: bool) -> None:
    assert is_excluded(path, patterns) is expected


@given(st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1))
def test_pattern_of_a_path_matches_it_and_nothing_shorter(name: str) -> None:
    escaped = pattern(name)
    assert escaped.startswith("/")
    assert escaped.replace("\\\\", "\0").replace("\\", "").replace("\0", "\\") == f"/{name}"
