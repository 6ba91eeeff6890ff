"""pydantic's errors in words of the configuration: which key, and what was expected. Secrets are never shown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from backupd.settings.errors import Key, Problem
from backupd.settings.schema import Node, schema
from backupd.settings.types import format_size
from backupd.settings.words import did_you_mean, kind, one_of, spell

_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number",
    "int_from_float": "a whole number",
    "finite_number": "a whole number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
}
_SHAPES = {
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "dict_type": "a mapping",
    "mapping_type": "a mapping",
    "tuple_type": "a list",
    "list_type": "a list",
}
_BOUNDS = {"greater_than_equal": ("at least", "ge"), "less_than_equal": ("at most", "le")}
_SMALLEST_SIZE_BOUND = 1024**2


def explain(error: ValidationError, model: type[BaseModel]) -> Iterator[Problem]:
    """Every error of a validation as a Problem, its source still unknown."""
    root = schema(model)
    for details in error.errors(include_url=False):
        if details["type"] == "too_short" and details["input"]:
            continue  # its items are wrong, which is told besides
        key, node, parent = _place(details["loc"], root)
        if details["type"] in {"union_tag_not_found", "union_tag_invalid"}:
            key = (*key, "type")
        yield Problem(key, _message(details, key, node, parent))


def _place(location: tuple[int | str, ...], root: Node) -> tuple[Key, Node | None, Node | None]:
    """The key that a location means, its place in the tree, and the place that it is in.

    pydantic puts the type of a store into the location, and `[key]` behind a key that is itself wrong.
    """
    key: list[str] = []
    node: Node | None = root
    parent: Node | None = None
    for part in location:
        if part == "[key]":
            continue
        if node and node.kind == "union" and part in node.members:
            node = node.members[str(part)]
            continue
        key.append(str(part))
        parent, node = node, node.child(str(part)) if node else None
    return tuple(key), node, parent


def _message(details: ErrorDetails, key: Key, node: Node | None, parent: Node | None) -> str:
    sort, value, context = details["type"], details["input"], details.get("ctx", {})
    shown = kind(value) if node is not None and node.secret else spell(value)
    match sort:
        case "missing" | "too_short" | "string_too_short":
            return f"{_title(node, several=sort == 'too_short')} is missing"
        case "extra_forbidden":
            return f"unknown key{did_you_mean(key[-1], parent.names if parent else ())}"
        case "union_tag_not_found" | "union_tag_invalid":
            return _wrong_type(value, node)
        case "value_error":
            return str(context["error"])
    return _not_expected(sort, value, shown, context) or details["msg"].replace("Input should be", "expected")


def _not_expected(sort: str, value: object, shown: str, context: dict[str, Any]) -> str | None:
    if sort == "literal_error":
        words = _words(context["expected"])
        guess = did_you_mean(value, words) if isinstance(value, str) else ""
        return f"expected {one_of(words)}, not {shown}{guess}"
    if sort in _EXPECTED:
        quote = ": put it in quotes" if sort == "string_type" and isinstance(value, int | float) else ""
        return f"expected {_EXPECTED[sort]}, not {shown}{quote}"
    if sort in _SHAPES:
        return f"expected {_SHAPES[sort]}, not {kind(value)}"
    if sort in _BOUNDS:
        words_for_bound, name = _BOUNDS[sort]
        bound = context[name]
        if bound >= _SMALLEST_SIZE_BOUND and isinstance(value, int):
            return f"expected {words_for_bound} {format_size(bound)}, not {format_size(value)}"
        return f"expected {words_for_bound} {bound}, not {shown}"
    return None


def _words(expected: str) -> list[str]:
    """Pydantic's `'a', 'b' or 'c'` as a list."""
    return [word.strip(" '") for word in expected.replace(" or ", ", ").split(",")]


def _wrong_type(value: object, node: Node | None) -> str:
    members = node.members if node else {}
    given = value.get("type") if isinstance(value, dict) else None
    if given is None:
        return f"the type of the store is missing: expected {one_of(members)}"
    guess = did_you_mean(given, members) if isinstance(given, str) else ""
    return f"expected {one_of(members)}, not {spell(given)}{guess}"


def _title(node: Node | None, *, several: bool) -> str:
    title = (node and node.title) or "a value"
    if several:
        return f"at least one {title.removeprefix('a list of ').removeprefix('a ').removesuffix('s')}"
    return title
