"""Bytes that somebody has made up, wherever backupd reads any: never anything but the module's own error, and soon.

What each function is fed with and may raise is in `tests/support/fuzzing.py`. `make torture` hands the same to Atheris.
"""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from backupd.archive import Index
from backupd.errors import IntegrityError
from backupd.model import MIB
from backupd.settings.yamlfile import parse_yaml
from tests.support.fuzz_seeds import bomb
from tests.support.fuzzing import Target, targets

TARGETS = {target.name: target for target in targets()}
ODD: list[Any] = [None, True, -1, 0, 1.5, 2**31, 2**63, 2**64, -(2**70), 10**30, 1e308, [], {}, [[]], {"": 0}]
ODD += [
    "0001-01-01T00:00:00Z",
    "",
    "..",
    "../../etc/passwd",
    "\ud800",
    "\0",
    "a" * 70,
    "9999-12-31T23:59:59-14:00",
    "2026-11-01T02:00:00",
]
VALUES = st.recursive(
    st.one_of(st.integers(), st.floats(), st.text(max_size=8), st.sampled_from(ODD)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


def places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    for name, inner in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
        yield from places(inner, (*path, name))


def grafted(tree: Any, path: tuple[Any, ...], value: Any) -> Any:
    """The tree with something else in one place."""
    if not path:
        return value
    changed = dict(tree) if isinstance(tree, dict) else list(tree)
    changed[path[0]] = grafted(tree[path[0]], path[1:], value)
    return changed


@st.composite
def edited(draw: st.DrawFn, target: Target) -> bytes:
    """A seed with a few bytes put in, taken out or exchanged."""
    data = bytearray(draw(st.sampled_from([seed for seed in target.seeds if len(seed) < 20_000])))
    for _ in range(draw(st.integers(1, 6))):
        start = draw(st.integers(0, len(data)))
        size = draw(st.sampled_from([0, 1, 1, 1, 2, 8, 600]))
        data[start : start + size] = draw(st.binary(max_size=8))
    return bytes(data)


@st.composite
def regrown(draw: st.DrawFn, target: Target) -> bytes:
    """A JSON seed with other values in a few places."""
    tree = json.loads(draw(st.sampled_from([seed for seed in target.seeds if len(seed) < 20_000])))
    for _ in range(draw(st.integers(1, 3))):
        tree = grafted(tree, draw(st.sampled_from(list(places(tree)))), draw(VALUES))
    return json.dumps(tree).encode()


@pytest.mark.parametrize("name", TARGETS)
def test_whatever_it_is_fed(name: str) -> None:
    target = TARGETS[name]
    for seed in target.seeds:
        target(seed)
        target(seed[: len(seed) // 2])
    inputs = st.one_of(st.binary(max_size=200), edited(target))
    if target.json:
        inputs = st.one_of(inputs, regrown(target), regrown(target))

    @settings(
        max_examples=20 if name == "configuration" else 80,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(inputs)
    @example(b"")
    def check(data: bytes) -> None:
        target(data)

    check()


@pytest.mark.parametrize("name", [name for name, target in TARGETS.items() if target.json])
def test_every_value_of_a_document_by_odd_ones(name: str) -> None:
    tree = json.loads(TARGETS[name].seeds[0])
    for path in places(tree):
        for value in ODD:
            try:
                TARGETS[name](json.dumps(grafted(tree, path, value)).encode())
            except Exception as exc:
                raise AssertionError(f"{path} = {value!r}") from exc


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_right_is_taken(name: str) -> None:
    """Or else all of the above would say nothing: the first seed gets through."""
    target = TARGETS[name]
    if name == "drill records":  # the record of another drill, which is told
        with pytest.raises(IntegrityError):
            target.feed(target.seeds[0])
    else:
        target.feed(target.seeds[0])


def test_an_index_that_claims_a_gigabyte() -> None:
    data = bomb(1 << 30)
    assert len(data) < MIB
    tracemalloc.start()
    try:
        with pytest.raises(IntegrityError):
            list(Index([data], "it"))
        assert tracemalloc.get_traced_memory()[1] < 200 * MIB
    finally:
        tracemalloc.stop()


def test_aliases_that_stand_for_aliases() -> None:
    for first, more in (("{x: 1}", "{{p: *a{0}, q: *a{0}}}"), ("[1]", "[*a{0}, *a{0}]")):
        lines = [f"a0: &a0 {first}", *(f"a{number}: &a{number} {more.format(number - 1)}" for number in range(1, 60))]
        tree, (problem,) = parse_yaml("\n".join(lines), "it")
        assert tree is None
        assert "aliases" in problem.message
