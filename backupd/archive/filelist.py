"""The file list of an archive: a line for every member of its tar stream, in stream order.

    {"kind":"files","format":1}
    {"path":"photos/1.jpg","kind":"file","offset":1536,"mode":420,"uid":1000,"gid":1000,"mtime":…,"size":48213}

Zstandard-compressed JSON lines. Fields that are zero or empty are left out. A path or link that is not UTF-8 stands as
`path_bytes` or `link_bytes` instead, base64 of the raw bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from backupd.archive.lines import LineWriter, Sink, read_lines
from backupd.archive.member import Member, decoded
from backupd.errors import IntegrityError
from backupd.malformed import MALFORMED


class _Header(msgspec.Struct, frozen=True):
    kind: str
    format: int


_FORMAT_1 = _Header(kind="files", format=1)


class _RawMember(Member, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A member as stored when a name of it is not UTF-8."""

    path: str = ""
    path_bytes: bytes | None = None
    link_bytes: bytes | None = None


# Made on import: msgspec 0.22 crashes when several threads are the first to decode a type.
_HEADER = msgspec.json.Decoder(_Header)
_MEMBER = msgspec.json.Decoder(Member)
_RAW_MEMBER = msgspec.json.Decoder(_RawMember)


class FileListWriter:
    """Writes a file list as its archive is made."""

    def __init__(self, sink: Sink) -> None:
        self._lines = LineWriter(sink)
        self._encoder = msgspec.json.Encoder()
        self._lines.write(self._encoder.encode(_FORMAT_1))

    def add(self, member: Member) -> None:
        """The next member of the stream."""
        self.extend([member])

    def extend(self, members: list[Member]) -> None:
        """The next members of the stream."""
        try:
            lines = self._encoder.encode_lines(members)
        except UnicodeEncodeError:
            lines = self._encoder.encode_lines([_encodable(member) for member in members])
        self._lines.write_lines(lines)

    def close(self) -> None:
        """End the object."""
        self._lines.close()


def _encodable(member: Member) -> Member:
    try:
        member.path.encode()
        member.link.encode()
    except UnicodeEncodeError:
        return _raw(member)
    return member


def _raw(member: Member) -> _RawMember:
    fields = msgspec.structs.asdict(member)
    for name in ("path", "link"):
        try:
            fields[name].encode()
        except UnicodeEncodeError:
            fields[f"{name}_bytes"] = fields.pop(name).encode("utf-8", "surrogateescape")
    return _RawMember(**fields)


def read_file_list(pieces: Iterable[bytes], name: str) -> Iterator[Member]:
    """The members of a stored file list; IntegrityError names the object if it is not one."""
    lines = read_lines(pieces, name)
    decode, decode_raw = _MEMBER.decode, _RAW_MEMBER.decode
    try:
        header = _HEADER.decode(next(lines, b""))
        if header != _FORMAT_1:
            raise IntegrityError(f"{name} is not a file list of format 1")
        for line in lines:
            # Within a name, the quotation mark would have a backslash before it.
            yield _decoded(decode_raw(line)) if b'_bytes"' in line else decode(line)
    except MALFORMED as exc:
        raise IntegrityError(f"{name} is not a file list: {exc}") from exc


def _decoded(raw: _RawMember) -> Member:
    fields = {field: getattr(raw, field) for field in Member.__struct_fields__}
    if raw.path_bytes is not None:
        fields["path"] = decoded(raw.path_bytes)
    if raw.link_bytes is not None:
        fields["link"] = decoded(raw.link_bytes)
    return Member(**fields)
