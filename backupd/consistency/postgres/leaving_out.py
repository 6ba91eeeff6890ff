"""Exclude patterns for members that no tar of ours makes; what they mean is said in `Engine.tar_out`."""

from __future__ import annotations

import re
from collections.abc import Sequence

from backupd.archive import Edit

_SPECIAL = re.compile(r"[*?\[\\]")
_WILD = {"*": ".*", "?": "."}
# An escaped character, a bracket that is closed (one right at the beginning stands for itself), or any one character.
_ATOM = re.compile(r"\\.|\[[!^]?\]?(?:\\.|[^\]\\])*\]|.", re.DOTALL)


def leaving_out(patterns: Sequence[str]) -> Edit:
    """Leave out what a pattern matches, and what is below it."""
    names = [_compiled(pattern) for pattern in patterns if "/" not in pattern]
    paths = [
        [_compiled(part) for part in pattern.removeprefix("./").strip("/").split("/")]
        for pattern in patterns
        if "/" in pattern
    ]

    def edit(path: str) -> str | None:
        parts = path.split("/")
        if any(name.fullmatch(part) for name in names for part in parts):
            return None
        for wanted in paths:
            if len(parts) >= len(wanted) and all(
                want.fullmatch(part) for want, part in zip(wanted, parts, strict=False)
            ):
                return None
        return path

    return edit


def literal(path: str) -> str:
    """A pattern that matches this path only."""
    return _SPECIAL.sub(r"\\\g<0>", path)


def _compiled(pattern: str) -> re.Pattern[str]:
    """A shell pattern for one name, POSIX.1-2017 2.13.1, without character classes (settings refuse them)."""
    return re.compile("".join(_translated(atom) for atom in _ATOM.findall(pattern)), re.DOTALL)


def _translated(atom: str) -> str:
    if atom in _WILD:
        return _WILD[atom]
    if atom[0] == "\\":
        return re.escape(atom[1:])
    if len(atom) == 1:
        return re.escape(atom)
    negated = atom[1] in "!^"
    characters = re.sub(r"\\(.)|([\[\]^&~|])", r"\\\1\2", atom[2:-1] if negated else atom[1:-1])
    return f"[{'^' if negated else ''}{characters}]"
