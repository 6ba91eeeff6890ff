"""Settings from environment variables: BACKUPD_STORES__OFFSITE__BUCKET, and …_FILE for secrets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct, field

from backupd.settings.errors import Key, Problem
from backupd.settings.layers import Layer, Tree
from backupd.settings.schema import Node, leaves
from backupd.settings.words import did_you_mean, kind
from backupd.settings.yamlfile import parse_yaml

PREFIX = "BACKUPD_"
CONFIG_VARIABLE = "BACKUPD_CONFIG"
IDENTITY_VARIABLE = "BACKUPD_IDENTITY_FILE"
PASSPHRASE_VARIABLE = "BACKUPD_IDENTITY_PASSPHRASE_FILE"  # noqa: S105  (a name)
# Of the command line, not of the configuration.
_OTHERS = frozenset({CONFIG_VARIABLE, IDENTITY_VARIABLE, PASSPHRASE_VARIABLE})
_FILE = "_file"
_MOST_SECRET_BYTES = 64 * 1024


class _Reader(Struct):
    root: Node
    files: Tree
    directory: Path
    tree: Tree = field(default_factory=dict)
    sources: dict[Key, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def add(self, variable: str, text: str) -> None:
        """Take over one variable, or note what is wrong with it. An empty one counts as not set."""
        found = self._find(variable)
        if found is None:
            self._refuse(variable, f"unknown setting{self._guess(variable)}")
            return
        key, node, from_file = found
        if not text:
            return
        if key in self.sources:
            self._refuse(variable, f"already set by {self.sources[key].split(' ')[0]}: expected one of them", key)
        elif from_file:
            self._add_file(variable, text, key, node)
        else:
            self._set(variable, key, self._value(variable, text, key, node))

    def _add_file(self, variable: str, text: str, key: Key, node: Node) -> None:
        if not node.secret and node.kind != "list":
            self._refuse(variable, "only secrets and lists are read from files", key)
            return
        path = self.directory / text
        try:
            with path.open("rb") as file:
                content = file.read(_MOST_SECRET_BYTES + 1)
            secret = content.decode().removesuffix("\n").removesuffix("\r")
        except OSError as exc:
            self._refuse(variable, f"cannot read {path}: {exc.strerror}", key)
        except UnicodeDecodeError:
            self._refuse(variable, f"expected UTF-8 text in {path}", key)
        else:
            if not secret or len(content) > _MOST_SECRET_BYTES:
                self._refuse(
                    variable, f"expected a secret in {path}, which {'is too long' if secret else 'is empty'}", key
                )
            else:
                self._set(f"{variable} ({path})", key, secret if node.secret else _lines(secret))

    def _value(self, variable: str, text: str, key: Key, node: Node) -> Any:
        """A plain value as it is; a list as YAML or separated by commas; a mapping as YAML, of which JSON is a part."""
        if node.kind == "value":
            return text
        if node.kind == "list" and not text.lstrip().startswith("["):
            return [item.strip() for item in text.split(",") if item.strip()]
        tree, problems = parse_yaml(f"value: {text}", variable)
        self.problems.extend(Problem(key, problem.message, variable) for problem in problems)
        value = (tree or {}).get("value")
        expected = list if node.kind == "list" else dict
        if tree is not None and not isinstance(value, expected):
            shape = "a list" if node.kind == "list" else "a mapping, such as {key: value}"
            self._refuse(variable, f"expected {shape}, not {kind(value)}", key)
        return value if isinstance(value, expected) else None

    def _set(self, source: str, key: Key, value: Any) -> None:
        if value is None:
            return
        place: Any = self.tree
        for name in key[:-1]:
            place = place.setdefault(name, {})
            if not isinstance(place, dict):
                self._refuse(source, "another variable sets a part of this to something else", key)
                return
        place[key[-1]] = value
        self.sources[key] = source

    def _refuse(self, variable: str, message: str, key: Key = ()) -> None:
        self.problems.append(Problem(key, message, variable))

    def _find(self, variable: str) -> tuple[Key, Node, bool] | None:
        """The key that a variable means, its place, and whether the value is in a file. None if it means none."""
        *groups, last = variable.removeprefix(PREFIX).split("__")
        for name, from_file in ((last, False), (last[: -len(_FILE)], True)):
            if from_file and not last.lower().endswith(_FILE):
                break
            key: Key = ()
            node: Node | None = self.root
            for part in (*groups, name):
                key = (*key, self._entry(key, part) if node and node.kind == "table" else part.lower())
                node = node.child(key[-1]) if node else None
            if node is not None and all(key):
                return key, node, from_file
        return None

    def _entry(self, key: Key, part: str) -> str:
        """The entry of a table that a part of a variable's name means: upper case, and `_` for `-` and `.`."""
        known = self._entries(key)
        exact = [name for name in known if name.lower() == part.lower()]
        alike = [name for name in known if _folded(name) == _folded(part)]
        if exact:
            return exact[0]
        return alike[0] if len(alike) == 1 else part.lower()

    def _entries(self, key: Key) -> tuple[str, ...]:
        table: Any = self.files
        for name in key:
            table = table.get(name) if isinstance(table, dict) else None
        return tuple(table) if isinstance(table, dict) else ()

    def _guess(self, variable: str) -> str:
        parts = variable.removeprefix(PREFIX).split("__")
        known: dict[Key, tuple[str, ...]] = {
            (name,): (*self._entries((name,)), *(part.lower() for part in parts[1:2]))
            for name, node in self.root.fields.items()
            if node.kind == "table"
        }
        return did_you_mean(
            variable, (name for key, node in leaves(self.root, known) for name in _names(key, node)), 0.8
        )


def read_environment(
    environment: Mapping[str, str], root: Node, files: Tree, directory: Path
) -> tuple[Layer, list[Problem]]:
    """The layer of the environment. `files` names the entries that there are, `directory` is where relative files are.

    Variables that begin with BACKUPD_ and mean no setting are problems, those of the command line aside.
    """
    reader = _Reader(root, files, directory)
    for variable in sorted(environment):
        if variable.startswith(PREFIX) and variable not in _OTHERS:
            reader.add(variable, environment[variable])
    return Layer(reader.tree, "environment", reader.sources), reader.problems


def _names(key: Key, node: Node) -> tuple[str, ...]:
    name = PREFIX + re.sub(r"[-.]", "_", "__".join(key)).upper()
    return (name, f"{name}_FILE") if node.secret or node.kind == "list" else (name,)


def _lines(text: str) -> list[str]:
    """A list in a file: an item a line; empty lines and those that begin with # do not count."""
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _folded(name: str) -> str:
    return re.sub(r"[-.]", "_", name.lower())
