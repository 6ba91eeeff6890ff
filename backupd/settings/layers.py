"""Layers of the configuration: plain trees, each with where its values come from, merged by pydantic-settings.

Mappings are merged key by key, everything else is replaced. A null takes the key away again: its default holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from typing import Any

from msgspec import Struct
from msgspec.structs import replace
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from backupd.settings.errors import Key

Tree = dict[str, Any]


class Layer(Struct, frozen=True):
    """A tree of values. `source` is the file they come from; `sources` says so key by key for the environment."""

    tree: Tree
    source: str
    sources: Mapping[Key, str] | None = None


class LayerSource(PydanticBaseSettingsSource):
    """Hands one layer to pydantic-settings."""

    def __init__(self, settings_cls: type[BaseSettings], layer: Layer) -> None:
        super().__init__(settings_cls)
        self._layer = layer

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """One value of the top level, as it stands."""
        del field
        return self._layer.tree.get(field_name), field_name, False

    def __call__(self) -> Tree:
        """The whole tree, unknown keys included: the model reports them."""
        return self._layer.tree


def walk(tree: object, key: Key = ()) -> Iterator[tuple[Key, object]]:
    """Every key of a tree with its value, parents before their children."""
    if isinstance(tree, dict):
        for name, value in tree.items():
            yield (*key, name), value
            yield from walk(value, (*key, name))


def settled(layers: Sequence[Layer]) -> list[Layer]:
    """The layers without nulls, and without the keys that a later layer's null takes away."""
    return [
        replace(layer, tree=reduce(_without_removed, (later.tree for later in layers[index:]), layer.tree))
        for index, layer in enumerate(layers)
    ]


def merged(layers: Sequence[Layer]) -> Tree:
    """What settled layers say together, as pydantic-settings merges them, for use before it does."""
    return reduce(_over, (layer.tree for layer in layers), {})


def _without_removed(tree: Tree, above: Tree) -> Tree:
    return {
        name: _without_removed(value, above.get(name, {}) if isinstance(above.get(name), dict) else {})
        if isinstance(value, dict)
        else value
        for name, value in tree.items()
        if above.get(name, value) is not None
    }


def _over(below: Tree, above: Tree) -> Tree:
    both = {name for name, value in above.items() if isinstance(value, dict) and isinstance(below.get(name), dict)}
    return below | {name: _over(below[name], value) if name in both else value for name, value in above.items()}


class Origins:
    """Which layer a key comes from: the last one that sets it or, for a mapping, the last file that adds to it."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self._sources: dict[Key, str] = {}
        self._fallback = next((layer.source for layer in layers if layer.sources is None), "environment")
        for layer in layers:
            for key, value in walk(layer.tree):
                if layer.sources is None:
                    self._sources[key] = layer.source
                elif key in layer.sources or not isinstance(value, dict):
                    self._sources[key] = self._of_variable(layer.sources, key)
                else:
                    self._sources.setdefault(key, self._of_variable(layer.sources, key))

    def of(self, key: Key) -> str | None:
        """The source of exactly that key, None if no layer has it."""
        return self._sources.get(key)

    def nearest(self, key: Key) -> str:
        """The source of that key or, if no layer has it, of the mapping that should."""
        while key:
            if key in self._sources:
                return self._sources[key]
            key = key[:-1]
        return self._fallback

    @staticmethod
    def _of_variable(sources: Mapping[Key, str], key: Key) -> str:
        """The variable that sets `key`, a mapping around it, or the first thing in it."""
        for length in range(len(key), 0, -1):
            if key[:length] in sources:
                return sources[key[:length]]
        return next(source for inner, source in sources.items() if inner[: len(key)] == key)
