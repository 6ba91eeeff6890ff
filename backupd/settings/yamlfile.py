"""A YAML file as a plain tree. Repeated keys, keys that are no text and trees that contain themselves are problems."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from backupd.settings.errors import Key, Problem
from backupd.settings.words import kind, spell

_MERGE = "tag:yaml.org,2002:merge"
_LARGEST = 100_000
_QUOTED = re.compile(r"""'(?!<[a-z ]+>'|\\.')[^' ]{2,}'|"[^" ]{2,}\"""")
"""Text of the file in a message of PyYAML: a tag, an alias. Single characters and names of tokens may stay."""


def read_yaml(path: Path, source: str) -> tuple[dict[str, Any] | None, list[Problem]]:
    """The tree of a file, None if it cannot be read as one, and what is wrong with it.

    FileNotFoundError if there is no such file. An empty file is an empty tree.
    """
    try:
        text = path.read_bytes().decode()
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise FileNotFoundError(str(path)) from exc
    except IsADirectoryError:
        return None, [Problem((), "expected a file, not a directory (Docker makes one where a mounted file is missing)",
                              source)]  # fmt: skip
    except OSError as exc:
        return None, [Problem((), f"cannot be read: {exc.strerror}", source)]
    except UnicodeDecodeError as exc:
        return None, [Problem((), f"expected UTF-8 text; byte {exc.start} is not", source)]
    return parse_yaml(text, source)


def parse_yaml(text: str, source: str) -> tuple[dict[str, Any] | None, list[Problem]]:
    """The tree that a text is, None if it is not one, and what is wrong with it."""
    problems: list[Problem] = []
    try:
        loader = yaml.SafeLoader(text)
        try:
            root = loader.get_single_node()
            problems += _repeated(root, source, (), set())
            tree = loader.construct_document(root) if root is not None else {}
        finally:
            loader.dispose()
    except yaml.YAMLError as exc:
        return None, [_syntax(exc, source)]
    except (ValueError, RecursionError, TypeError):
        return None, [Problem((), "not valid YAML: a date, number or nesting that cannot be", source)]
    if tree is None:
        return {}, problems
    if not isinstance(tree, dict):
        return None, [*problems, Problem((), f"expected a mapping (`key: value` lines), not {kind(tree)}", source)]
    if _size(tree, {}) > _LARGEST:
        return None, [
            *problems,
            Problem((), "its aliases (`*name`) stand for more than a configuration can be", source),
        ]
    return _checked(tree, source, problems, (), ()), problems


def _size(tree: Any, known: dict[int, int]) -> int:
    """How many values there are with every alias written out, without writing them out."""
    if not isinstance(tree, dict | list):
        return 1
    if id(tree) not in known:
        known[id(tree)] = 1  # should it be in itself, which is told elsewhere
        known[id(tree)] += sum(_size(inner, known) for inner in (tree.values() if isinstance(tree, dict) else tree))
    return known[id(tree)]


def _repeated(node: yaml.Node | None, source: str, key: Key, looked_at: set[int]) -> Iterator[Problem]:
    """Keys that are given twice: PyYAML lets the second silently replace the first."""
    if not isinstance(node, yaml.MappingNode) or id(node) in looked_at:
        return
    looked_at.add(id(node))
    seen: set[str] = set()
    for name, value in node.value:
        if not isinstance(name, yaml.ScalarNode) or name.tag == _MERGE:
            continue
        if name.value in seen:
            line, column = name.start_mark.line + 1, name.start_mark.column + 1
            yield Problem((*key, name.value), f"given twice, again in line {line}, column {column}", source)
        seen.add(name.value)
        yield from _repeated(value, source, (*key, name.value), looked_at)


def _checked(
    tree: dict[Any, Any], source: str, problems: list[Problem], key: Key, around: tuple[int, ...]
) -> dict[str, Any]:
    """`tree` with text keys only; the rest becomes a problem."""
    checked: dict[str, Any] = {}
    around = (*around, id(tree))
    for name, value in tree.items():
        if not isinstance(name, str):
            problems.append(Problem(key, f"the key {spell(name)} is not text: put it in quotes", source))
        elif id(value) in around:
            problems.append(Problem((*key, name), "refers to a mapping that it is in", source))
        else:
            inner = (*key, name)
            checked[name] = _checked(value, source, problems, inner, around) if isinstance(value, dict) else value
    return checked


def _syntax(error: yaml.YAMLError, source: str) -> Problem:
    """Where and what, without the text itself: it may hold a secret."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    what = getattr(error, "problem", None) or getattr(error, "reason", None) or "cannot be understood"
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    hint = "; quote a value that begins with one of & * ! %" if re.search("alias|tag|anchor", what) else ""
    return Problem((), f"{where}not valid YAML: {_QUOTED.sub('…', what)}{hint}", source)
