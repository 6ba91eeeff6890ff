"""Which parts of a stream are fetched for single paths."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable, Iterator
from itertools import pairwise

import pytest

from backupd.archive import Member
from backupd.errors import SourceError, UsageError
from backupd.repository import Range, Selection, normalized, select_paths, spans

END = 10_000


def member(path: str, offset: int, kind: str = "file", link: str = "") -> Member:
    return Member(path=path, kind=kind, offset=offset, link=link)


TREE = [
    member(".", 0, "dir"),
    member("a", 100, "dir"),
    member("a/b", 200, "dir"),
    member("a/b/x", 300),
    member("a/bc", 400),
    member("first", 500),
    member("z", 600, "dir"),
    member("z/hard", 700, "hardlink", "./first"),
    member("z/y", 800),
]


def select(*paths: str, tree: Iterable[Member] = TREE) -> Selection:
    return select_paths(lambda: spans(tree, END), paths)


@pytest.mark.parametrize(("path", "expected"), [
    ("", "."), ("/", "."), ("./a/", "a"), ("/a//b/.", "a/b"), ("a b", "a b"),
])  # fmt: skip
def test_normalized(path: str, expected: str) -> None:
    assert normalized(path) == expected


@pytest.mark.parametrize("path", ["..", "a/../b", "../x", "a\nb", "a\0b"])
def test_paths_that_are_refused(path: str) -> None:
    with pytest.raises(UsageError):
        normalized(path)


def test_spans_cover_the_stream() -> None:
    found = [span for _, span in spans(TREE, END)]
    assert found[0] == (0, 100)
    assert found[-1] == (800, END)
    assert all(before[1] == after[0] for before, after in pairwise(found))
    assert list(spans([], END)) == []


@pytest.mark.parametrize(("paths", "ranges", "members", "outermost"), [
    (("a/b/x",), ((0, 400),), 1, ("a/b/x",)),
    (("a/b",), ((0, 400),), 2, ("a/b",)),
    (("a/bc",), ((0, 200), (400, 500)), 1, ("a/bc",)),
    (("z/hard",), ((0, 100), (500, 800)), 1, ("z/hard",)),
    (("z/hard", "first"), ((0, 100), (500, 800)), 2, ("z/hard", "first")),
    (("z", "z/y"), ((0, 100), (500, END)), 3, ("z",)),
    (("a/b/x", "a", "a"), ((0, 500),), 4, ("a",)),
    ((".",), ((0, END),), 9, (".",)),
])  # fmt: skip
def test_selection(paths: tuple[str, ...], ranges: tuple[Range, ...], members: int, outermost: tuple[str, ...]) -> None:
    selection = select(*paths)
    assert selection.ranges == ranges
    assert selection.members == members
    assert selection.paths == outermost
    assert selection.size == sum(end - start for start, end in ranges)


@pytest.mark.parametrize("path", ["b", "a/b/x/y", "a/", "A"])
def test_what_is_not_there(path: str) -> None:
    with pytest.raises(SourceError, match="holds no"):
        select("first", path)


def test_many_files_take_little_memory() -> None:
    def tree() -> Iterator[Member]:
        yield member(".", 0, "dir")
        for number in range(200_000):
            yield member(f"d/{number}", 1000 + number * 1024)

    tracemalloc.start()
    selection = select_paths(lambda: spans(tree(), 10**9), ("d",))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert selection.ranges == ((0, 10**9),)
    assert peak < 1 << 20
