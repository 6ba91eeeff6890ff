"""The shape of the settings, read off the models: what the environment, the messages and the dump walk along."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from msgspec import Struct, field
from pydantic import BaseModel, SecretStr

from backupd.settings.errors import Key
from backupd.settings.types import PathMark

Kind = Literal["group", "table", "union", "list", "value"]


class Node(Struct, frozen=True):
    """One place in the tree.

    A `group` has known keys (`fields`), a `table` entries of any name (`entry`), a `union` is one of several groups
    (`members`, by their `type`; `fields` holds the keys of all). `title` is what a message calls it.
    """

    kind: Kind
    fields: Mapping[str, Node] = field(default_factory=dict)
    members: Mapping[str, Node] = field(default_factory=dict)
    entry: Node | None = None
    title: str | None = None
    secret: bool = False
    path: PathMark | None = None

    def child(self, name: str) -> Node | None:
        """The place below this one, None if there is none of that name."""
        return self.entry if self.kind == "table" else self.fields.get(name)

    @property
    def names(self) -> tuple[str, ...]:
        """The known keys."""
        return tuple(self.fields)


def schema(model: type[BaseModel]) -> Node:
    """The tree of a model."""
    fields = {
        name: _node(info.annotation, tuple(info.metadata), info.title) for name, info in model.model_fields.items()
    }
    return Node("group", fields=fields)


def leaves(node: Node, known: Mapping[Key, tuple[str, ...]], key: Key = ()) -> Iterator[tuple[Key, Node]]:
    """Every place that holds a value; `known` names the entries of each table."""
    if node.kind == "table" and node.entry:
        for name in known.get(key, ()):
            yield from leaves(node.entry, known, (*key, name))
    elif node.fields:
        for name, child in node.fields.items():
            yield from leaves(child, known, (*key, name))
    else:
        yield key, node


def at(root: Node, key: Key) -> Node | None:
    """The place that `key` leads to, None if there is none."""
    node: Node | None = root
    for name in key:
        node = node.child(name) if node else None
    return node


def _node(annotation: Any, metadata: tuple[Any, ...], title: str | None) -> Node:
    base, metadata = _bare(annotation, metadata)
    marks = [mark for mark in metadata if isinstance(mark, PathMark)]
    origin, arguments = get_origin(base), get_args(base)
    if origin in {Union, types.UnionType}:
        members = {get_args(member.model_fields["type"].annotation)[0]: schema(member) for member in arguments}
        fields = {name: child for member in members.values() for name, child in member.fields.items()}
        return Node("union", fields=fields, members=members, title=title)
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        return Node("table", entry=_node(arguments[1], (), title), title=title)
    if origin is tuple:
        return Node("list", title=title)
    if isinstance(base, type) and issubclass(base, BaseModel):
        return Node("group", fields=schema(base).fields, title=title)
    return Node("value", title=title, secret=base is SecretStr, path=marks[-1] if marks else None)


def _bare(annotation: Any, metadata: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
    """An annotation without `Annotated` and `| None`, and all metadata found on the way, the outermost last."""
    while True:
        if get_origin(annotation) is Annotated:
            annotation, *inner = get_args(annotation)
            metadata = (*inner, *metadata)
        elif get_origin(annotation) in {Union, types.UnionType} and type(None) in get_args(annotation):
            others = [argument for argument in get_args(annotation) if argument is not type(None)]
            if len(others) != 1:
                return annotation, metadata
            annotation = others[0]
        else:
            return annotation, metadata
