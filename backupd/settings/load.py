"""From files and environment to Settings: base file, overlay of APP_ENV, environment, each over the one before."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from backupd.settings.environment import CONFIG_VARIABLE, PREFIX, read_environment
from backupd.settings.errors import Problem, SettingsError
from backupd.settings.layers import Layer, Origins, Tree, merged, settled, walk
from backupd.settings.model import Settings
from backupd.settings.schema import Node, at, schema
from backupd.settings.show import origins
from backupd.settings.types import MASK
from backupd.settings.words import spell
from backupd.settings.yamlfile import read_yaml

APP_ENV = "APP_ENV"
DEFAULT_FILES = (Path("config/backupd.yaml"), Path("/etc/backupd/backupd.yaml"))

_SHORTEST_MASKED = 4
_ENVIRONMENT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def load_settings(path: Path | None = None, environment: Mapping[str, str] | None = None) -> Settings:
    """The settings of `path` (else BACKUPD_CONFIG, else the first of DEFAULT_FILES) and of `environment`.

    SettingsError, a ConfigError, tells every problem at once, a line each.
    """
    environment = os.environ if environment is None else environment
    root = schema(Settings)
    files = _read_files(path, environment)
    variables, more = read_environment(environment, root, merged(settled(files.layers)), files.directory)
    problems = files.problems + more
    layers = settled([*files.layers, variables])
    if not (files.layers or variables.tree or problems):
        looked = " and ".join(map(str, DEFAULT_FILES))
        problems = [Problem((), f"there is no configuration: looked for {looked}, and for {PREFIX}… variables")]
    elif files.readable:
        settings, wrong = _validate(layers, root, files.directory)
        problems += wrong
        if settings and not problems:
            return settings
    secrets = [secret for layer in layers for secret in _secrets(layer.tree, root)]
    raise SettingsError(_masked(problem, secrets) for problem in problems)


class _Files(Struct):
    """The files' layers, base first. Not `readable`: one of them is no YAML, so the rest cannot be judged."""

    directory: Path
    layers: list[Layer] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    readable: bool = True

    def read(self, path: Path) -> bool:
        """Take over one file; whether there is one."""
        try:
            tree, problems = read_yaml(path, str(path))
        except FileNotFoundError:
            return False
        self.problems += problems
        if tree is None:
            self.readable = False
        else:
            self.layers.append(Layer(tree, str(path)))
        return True


def _read_files(path: Path | None, environment: Mapping[str, str]) -> _Files:
    named = environment.get(CONFIG_VARIABLE) if path is None else None
    chosen = path or (Path(named) if named else None)
    for candidate in [chosen] if chosen else DEFAULT_FILES:
        files = _Files(Path(os.path.abspath(candidate.parent)))  # noqa: PTH100  (symbolic links stay as they are)
        if files.read(candidate):
            _read_overlay(files, candidate, environment.get(APP_ENV, ""))
            return files
    files = _Files(Path.cwd())
    if chosen:
        files.readable = False
        files.problems.append(Problem((), f"there is no such file: {chosen}", CONFIG_VARIABLE if named else None))
    return files


def _read_overlay(files: _Files, base: Path, name: str) -> None:
    if name and not _ENVIRONMENT_NAME.fullmatch(name):
        files.problems.append(Problem((), f"expected a name such as prod, not {spell(name)}", APP_ENV))
    elif name:
        files.read(base.with_name(f"{base.stem}.{name}{base.suffix}"))


def _validate(layers: list[Layer], root: Node, directory: Path) -> tuple[Settings | None, list[Problem]]:
    found = Origins(layers)
    engine = merged(layers).get("engine", "docker")
    absolute = [replace(layer, tree=_with_paths(layer.tree, root, engine, directory)) for layer in layers]
    try:
        settings = Settings(layers=absolute)
    except SettingsError as exc:
        return None, [replace(problem, source=found.nearest(problem.key)) for problem in exc.problems]
    settings.set_origins(origins(settings, found))
    return settings, []


def _with_paths(value: Any, node: Node | None, engine: object, directory: Path) -> Any:
    """`value` with every relative path taken from the configuration's directory."""
    if node is None:
        return value
    if isinstance(value, dict):
        return {name: _with_paths(item, node.child(name), engine, directory) for name, item in value.items()}
    if node.path is None or node.path.only_engine not in {None, engine} or not isinstance(value, str):
        return value
    return os.path.normpath(directory / value) if value and not value.startswith(("/", "~")) else value


def _secrets(tree: Tree, root: Node) -> Iterator[str]:
    for key, value in walk(tree):
        node = at(root, key)
        if node is not None and node.secret and isinstance(value, str | int) and str(value):
            yield str(value)


def _masked(problem: Problem, secrets: list[str]) -> Problem:
    """A last safeguard: messages do not show what is given for a secret, but the same text may be elsewhere too."""
    message = problem.message
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= _SHORTEST_MASKED:
            message = message.replace(secret, MASK)
    return replace(problem, message=message)
