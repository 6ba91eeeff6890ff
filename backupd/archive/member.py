"""One member of a tar stream, as file lists keep it."""

from __future__ import annotations

import msgspec


class Member(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One member of a tar stream, and one line of a file list.

    `path` is relative to the volume's root, which itself is `.`; bytes that are not UTF-8 are surrogate-escaped.
    `size` is the size of the file as a reader sees it (a sparse file's holes count), in bytes. `mtime` is in
    nanoseconds since the epoch, or the nearest that 64 bits hold. `offset` is where the member's first header begins
    in the tar stream.
    """

    path: str
    kind: str
    offset: int
    mode: int = 0
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    size: int = 0
    link: str = ""
    device: tuple[int, int] | None = None


def relative(path: bytes) -> str:
    """The path without a leading `./` and trailing slashes; the root is `.`."""
    while path.startswith(b"./"):
        path = path[2:].lstrip(b"/")
    if path.endswith(b"/"):
        path = path.rstrip(b"/") or b"/"
    return decoded(path) or "."


def decoded(name: bytes) -> str:
    """A name as text, whatever the locale."""
    return name.decode("utf-8", "surrogateescape")
