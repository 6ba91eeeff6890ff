"""The same files are left out of a server's copy as GNU tar leaves out of a volume."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backupd.consistency.postgres.leaving_out import leaving_out, literal
from backupd.engine.tarcommand import LocalTar, create_command
from backupd.model import Tool
from tests.support.tars import walk

PATHS = ("log/a.log", "log/b.txt", "base/1/log", "base/1/2600", "a.log/x", "x]y/z", "a?b", "a*b/c", "q\\r", "^s")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tree")
    for path in PATHS:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


@pytest.mark.parametrize(
    "pattern",
    [
        *("*.log", "log", "log/*", "base/1", "./base/*/log", "base/*", "*/1/2600", "a[?]b", "a\\?b", "a\\*b", "a?b"),
        *(
            "[a-b]*",
            "[!a]*",
            "[^a]*",
            "x]y",
            "q\\\\r",
            "?",
            "/log",
            "log/",
            "*",
            "*/*/*",
            "\\^s",
            "[]x]*",
            "base/1/26*",
        ),
    ],
)
def test_as_tar_does(tree: Path, pattern: str) -> None:
    command = create_command(LocalTar(Tool("gnu", "1.34")), str(tree), (pattern,))
    stream = subprocess.run(command, check=True, capture_output=True).stdout
    wanted = {member.path for member in walk(stream)[0]} - {"."}
    edit = leaving_out((pattern,))
    everything = {str(path.relative_to(tree)) for path in tree.rglob("*")}
    assert {path for path in everything if edit(path) is not None} == wanted


@given(st.text("ab*?[]\\^!-", min_size=1, max_size=6), st.text("ab*?[]\\^!-", min_size=1, max_size=6))
def test_a_literal_matches_itself_only(path: str, other: str) -> None:
    edit = leaving_out((f"{literal(path)}/x",))
    assert edit(f"{path}/x") is None
    assert (edit(f"{other}/x") is None) == (other == path)
