"""Patterns as tar gets them, judged by fnmatch(3) with tar's flags."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest

from backupd.engine.exclude import STAGING, translate
from backupd.errors import SourceError

NAMES = ("a", "b", ".", ".a", "a.", "..", "...", "ab", ".ab", "?", "*", "[", "-", "_", "a.b")


PATTERNS = (
    *("*", "**", "?", "?*", "*?", "*?*", ".*", "*.", "*.*", "[.]", "[._]", "[!a]", "[!a]*", "*[!a]", "[!]]", "[a-c]"),
    *("[a-c]*", "a", "ab", "a*", ".?", "??", "[ab]", "*a*", "\\.", "\\.*", "[", "[a", "[.a]*"),
)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_names_mean_the_same_but_never_match_the_dot(pattern: str) -> None:
    excludes = translate([pattern])
    assert excludes.paths == STAGING
    assert not any(matches(".", name) for name in excludes.names)
    for name in NAMES:
        if name != ".":
            assert any(matches(name, each) for each in excludes.names) == matches(name, pattern), name


def matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern.replace("\\.", "[.]"))


@pytest.mark.parametrize(
    ("pattern", "path"),
    [("a/b", "./a/b"), ("/a", "./a"), ("a/", "./a"), ("./a", "./a"), ("./a/b/", "./a/b"), ("*/.x", "./*/.x")],
)
def test_a_slash_anchors(pattern: str, path: str) -> None:
    excludes = translate([pattern])
    assert excludes.names == ()
    assert excludes.paths == (*STAGING, path)


@pytest.mark.parametrize("pattern", ["", "/", ".", "./", "..", "//", "a\0b"])
def test_no_file(pattern: str) -> None:
    with pytest.raises(SourceError, match="names no file"):
        translate([pattern])


def test_character_classes_differ_too_much() -> None:
    with pytest.raises(SourceError, match="classes"):
        translate(["[[:alpha:]]*"])
