"""Records that do not show everything.

Records are `Struct`s throughout: one takes a thirtieth of the time that a dataclass takes to define, and every
command defines a hundred before it begins (docs/decisions/0084-records-are-structs.md).
"""

from __future__ import annotations

from typing import ClassVar

from msgspec import Struct


class Discreet(Struct, frozen=True):
    """A record whose repr leaves out what `_hidden` names: secrets, and what would fill pages."""

    _hidden: ClassVar[tuple[str, ...]]

    def __repr__(self) -> str:
        shown = (name for name in self.__struct_fields__ if name not in self._hidden)
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"
