"""The file list of an archive: a line for every member of its tar stream, in stream order.

    {"kind":"files","format":1}
    {"path":"photos/1.jpg","kind":"file","offset":1536,"mode":420,"uid":1000,"gid":1000,"mtime":…,"size":48213}

Zstandard-compressed JSON lines. Fields that are zero or empty are left out. A path or link that is not UTF-8 stands as
`path_bytes` or `link_bytes` instead, base64 of the raw bytes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

import msgspec

from backupd.archive.lines import LineWriter, Sink, read_lines
from backupd.archive.tarwalk import Member
from backupd.errors import IntegrityError


class _Header(msgspec.Struct, frozen=True):
    kind: str = "files"
    format: int = 1


class _RawMember(Member, frozen=True, kw_only=True, omit_defaults=True):
    """A member as stored when a name of it is not UTF-8."""

    path: str = ""
    path_bytes: bytes | None = None
    link_bytes: bytes | None = None


class FileListWriter:
    """Writes a file list as its archive is made."""

    def __init__(self, sink: Sink) -> None:
        self._lines = LineWriter(sink)
        self._encode = msgspec.json.Encoder().encode
        self._lines.write(self._encode(_Header()))

    def add(self, member: Member) -> None:
        """The next member of the stream."""
        try:
            line = self._encode(member)
        except UnicodeEncodeError:
            line = self._encode(_raw(member))
        self._lines.write(line)

    def close(self) -> None:
        """End the object."""
        self._lines.close()


def _raw(member: Member) -> _RawMember:
    fields = msgspec.structs.asdict(member)
    for name in ("path", "link"):
        try:
            fields[name].encode()
        except UnicodeEncodeError:
            fields[f"{name}_bytes"] = os.fsencode(fields.pop(name))
    return _RawMember(**fields)


def read_file_list(pieces: Iterable[bytes], name: str) -> Iterator[Member]:
    """The members of a stored file list; IntegrityError names the object if it is not one."""
    lines = read_lines(pieces, name)
    decode = msgspec.json.Decoder(_RawMember).decode
    try:
        header = msgspec.json.decode(next(lines, b""), type=_Header)
        if header != _Header():
            raise IntegrityError(f"{name} is not a file list of format 1")
        for line in lines:
            raw = decode(line)
            yield raw if raw.path_bytes is None and raw.link_bytes is None else _decoded(raw)
    except msgspec.DecodeError as exc:
        raise IntegrityError(f"{name} is not a file list: {exc}") from exc


def _decoded(raw: _RawMember) -> Member:
    fields = {field: getattr(raw, field) for field in Member.__struct_fields__}
    if raw.path_bytes is not None:
        fields["path"] = os.fsdecode(raw.path_bytes)
    if raw.link_bytes is not None:
        fields["link"] = os.fsdecode(raw.link_bytes)
    return Member(**fields)
