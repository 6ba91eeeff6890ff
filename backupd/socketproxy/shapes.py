"""JSON objects held against a list of what may be in them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from backupd.socketproxy.model import Refusal

Test = Callable[[Any], bool]


def take(what: str, given: Any, allowed: Mapping[str, Test], required: Sequence[str] = ()) -> dict[str, Any]:
    """The keys of `given` that say something, each of which has to pass its test. Nothing else is taken over.

    What is empty counts as not given: it is left out, so that the Engine's default holds, whatever emptiness would have
    meant (an empty MaskedPaths takes away a protection).
    """
    if not isinstance(given, dict):
        raise Refusal(f"{what} has to be an object")
    taken = {}
    for key, value in given.items():
        if not value:
            continue
        test = allowed.get(key)
        if test is None:
            raise Refusal(f"{what}.{key} is not allowed")
        if not test(value):
            raise Refusal(f"{what}.{key} may not be {_short(value)}")
        taken[key] = value
    for key in required:
        if key not in taken:
            raise Refusal(f"{what}.{key} is missing")
    return taken


def is_true(value: Any) -> bool:
    """The JSON word true."""
    return value is True


def equals(wanted: Any) -> Test:
    """Exactly that."""
    return lambda value: type(value) is type(wanted) and value == wanted


def matches(pattern: str) -> Test:
    """Text that is all of a pattern."""
    compiled = re.compile(pattern)
    return lambda value: isinstance(value, str) and compiled.fullmatch(value) is not None


def between(low: int, high: int) -> Test:
    """A whole number."""
    return lambda value: type(value) is int and low <= value <= high


def texts(value: Any) -> bool:
    """A list of text."""
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def subset(allowed: frozenset[str]) -> Test:
    """A list of text out of a set."""
    return lambda value: texts(value) and set(value) <= allowed


def table(value: Any) -> bool:
    """An object with text for values."""
    return isinstance(value, dict) and all(isinstance(item, str) for item in value.values())


def anything(value: Any) -> bool:
    """What is looked at elsewhere."""
    del value
    return True


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
