"""What which worker runs where there are several: what takes longest begins first, what is dear to make is made once.

A unit of work is a test; but all of `tests/e2e`, which share an image and the names of a stack; and a module, where its
tests are quick or it makes something for all of them.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler.loadscope import LoadScopeScheduling

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("tests/e2e", "tests/faults", "tests/integration", "tests/contract", "tests/golden", "tests/unit")
"""The longest first."""
QUICK = ("tests/golden", "tests/unit")


def unit_of(nodeid: str) -> str:
    """What is run on one worker with this test."""
    module = nodeid.partition("::")[0]
    kind = kind_of(module)
    if kind == "tests/e2e":
        return kind
    return module if kind in QUICK or makes_something(module) else nodeid


def kind_of(nodeid: str) -> str:
    return "/".join(nodeid.split("/")[:2])


@functools.cache
def makes_something(module: str) -> bool:
    path = ROOT / module
    return path.is_file() and 'scope="module"' in path.read_text()


class Spread(LoadScopeScheduling):
    """xdist's own, with our units; in the order in which the tests were collected."""

    def _split_scope(self, nodeid: str) -> str:
        return unit_of(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Spread | None:
    if config.getvalue("dist") != "loadgroup":
        return None
    config.option.loadscopereorder = False
    return Spread(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In a worker: by kind, and within a kind what is marked slow before the rest."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: (rank(item.nodeid), item.get_closest_marker("slow") is None))


def rank(nodeid: str) -> int:
    kind = kind_of(nodeid)
    return KINDS.index(kind) if kind in KINDS else len(KINDS)
