"""Exclude patterns, translated so that GNU and BusyBox tar leave out the same files.

What a user writes: a shell pattern without a slash matches a name at any depth, one with a slash a path from the
volume's root; `*` and `?` never match a slash. Both tars see member names as `./a/b`, so a path is anchored by
putting `./` before it, and a name must not match the `.` that every member name begins with.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from msgspec import Struct

from backupd.errors import SourceError

STAGING = ("./.backupd-restore-*", "./.backupd-old-*", "./.backupd-clone-*")


class Excludes(Struct, frozen=True):
    """`names` match at any depth, `paths` from the root and begin with `./`."""

    names: tuple[str, ...]
    paths: tuple[str, ...]


def translate(patterns: Sequence[str]) -> Excludes:
    """What to hand to tar, backupd's own staging directories included; SourceError if a pattern excludes the root."""
    names: list[str] = []
    paths = list(STAGING)
    for pattern in patterns:
        path = pattern.removeprefix("./").strip("/")
        if path in {"", ".", ".."} or "\0" in path:
            raise SourceError(f"exclude pattern {pattern!r} names no file", hint="leave a whole volume out of the plan")
        if any(mark in path for mark in ("[[:", "[[.", "[[=")) and "]" in path:
            raise SourceError(f"exclude pattern {pattern!r}: character classes are not supported")
        if "/" in pattern:
            paths.append(f"./{path}")
        else:
            names.extend(_without_dot(path))
    return Excludes(tuple(names), tuple(paths))


def _without_dot(pattern: str) -> tuple[str, ...]:
    """Patterns that together match what `pattern` does, except the name `.`.

    A pattern matches `.` only if it is one atom that can, with stars around it. Making each star take one character
    more leaves out the names of one character, which `_alone` gives back.
    """
    atoms = _atoms(pattern)
    singles = [atom for atom in atoms if atom != "*"]
    if len(singles) > 1 or (singles and not _can_be_dot(singles[0])):
        return (pattern,)
    if not singles:
        return ("[!.]", "??*")
    atom, before, after = singles[0], atoms[0] == "*", atoms[-1] == "*"
    longer_before = (f"?*{atom}{'*' if after else ''}",) if before else ()
    longer_after = (f"{'*' if before else ''}{atom}?*",) if after else ()
    return (*_alone(atom), *longer_before, *longer_after)


def _atoms(pattern: str) -> list[str]:
    atoms: list[str] = []
    position = 0
    while position < len(pattern):
        length = _atom_length(pattern, position)
        atoms.append(pattern[position : position + length])
        position += length
    return atoms


def _atom_length(pattern: str, start: int) -> int:
    if pattern[start] == "\\":
        return 2
    if pattern[start] != "[":
        return 1
    first = start + 2 if pattern[start + 1 : start + 2] in {"!", "^"} else start + 1
    end = pattern.find("]", first + 1)  # a bracket right at the beginning stands for itself
    return end + 1 - start if end != -1 else 1


def _can_be_dot(atom: str) -> bool:
    return atom == "\\." or fnmatchcase(".", atom.replace("[^", "[!"))


def _alone(atom: str) -> tuple[str, ...]:
    """A pattern for the names of one character that `atom`, which matches a dot, matches besides."""
    if atom == "?":
        return ("[!.]",)
    if atom.startswith(("[!]", "[^]")):
        return (f"[!].{atom[3:]}",)
    if atom.startswith(("[!", "[^")):
        return (f"[!.{atom[2:]}",)
    others = atom.replace(".", "")
    return (others,) if atom.startswith("[") and "-" not in atom and len(others) > 2 else ()
