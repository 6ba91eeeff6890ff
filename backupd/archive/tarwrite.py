"""Tar headers written: whole members, and the headers of a member that gets another name.

The formats of `tarheader`. A name that does not fit goes where its member's format has room for it: into the pax header
if there is one, else into GNU's long name, which BusyBox's tar reads as well.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct, field

from backupd.archive import tarheader as th
from backupd.errors import IntegrityError

END = bytes(2 * th.BLOCK)

_NAME_BYTES = 100
_USTAR = b"ustar\x0000"
_FILE, _DIRECTORY, _HARD_LINK = b"0", b"5", b"1"
_LONG_NAME_OWNER = b"././@LongLink"
_REWRITTEN = frozenset((b"path", b"linkpath", b"GNU.sparse.name"))


class MadeMember(Struct, frozen=True):
    """A file, or with `data` None a directory. `path` is relative to the root, `mtime` in nanoseconds."""

    path: str
    data: bytes | None
    mode: int
    uid: int
    gid: int
    mtime: int

    def encoded(self) -> bytes:
        """Its headers and content as a tar has them, the same bytes for the same member."""
        name = member_name(self.path, is_directory=self.data is None)
        seconds, fraction = divmod(self.mtime, 1_000_000_000)
        extension = b""
        if fraction or seconds < 0:
            sign, nanoseconds = ("-", -self.mtime) if self.mtime < 0 else ("", self.mtime)
            whole, rest = divmod(nanoseconds, 1_000_000_000)
            records = pax_record(b"mtime", f"{sign}{whole}.{rest:09}".encode())
            extension = _extension(b"x", b"./PaxHeaders/" + name.rstrip(b"/")[-80:], records)
        block = bytearray(th.BLOCK)
        content = self.data or b""
        block[100:148] = (
            _number(self.mode & 0o7777, 8)
            + _number(self.uid, 8)
            + _number(self.gid, 8)
            + _number(len(content), 12)
            + _number(max(seconds, 0), 12)
        )
        block[156:157] = _DIRECTORY if self.data is None else _FILE
        block[257:265] = _USTAR
        long_name = b"" if _put_name(block, name) else _extension(th.GNU_LONG_NAME, _LONG_NAME_OWNER, name + b"\0")
        return b"".join((extension, long_name, _sealed(block), content, bytes(-len(content) % th.BLOCK)))


def member_name(path: str, *, is_directory: bool) -> bytes:
    """A member's path as GNU tar writes it: `./` before it, a slash behind a directory."""
    if path == ".":
        return b"./"
    return b"./" + path.encode("utf-8", "surrogateescape") + (b"/" if is_directory else b"")


def pax_record(keyword: bytes, value: bytes) -> bytes:
    """`"%d %s=%s\\n"`, where the number counts its own digits too."""
    size = len(keyword) + len(value) + 3
    length = size + len(str(size))
    if size + len(str(length)) != length:
        length += 1
    return b"%d %s=%s\n" % (length, keyword, value)


def renamed(headers: memoryview, name: bytes, link: bytes | None) -> tuple[bytes, int]:
    """The headers of the member that `headers` begins with, for another name, and how long the old ones were.

    `link` is what a hard link gets to point to; that of a symbolic one is content, and stays. Everything else stays
    too: attributes, times, the map of a sparse file. `headers` holds all of them, and has been checked.
    """
    chain = _Chain()
    here = 0
    while True:
        block = headers[here : here + th.BLOCK].tobytes()
        here += th.BLOCK
        flag = block[156:157]
        if flag not in th.EXTENSIONS:
            return b"".join(chain.renamed(bytearray(block), name, link if flag == _HARD_LINK else None)), here
        size = th.natural(block[124:136])
        chain.add(flag, block, headers[here : here + size].tobytes())
        here += th.padded(size)


class _Chain(Struct):
    """The extension headers before a member: the records of the pax ones together, and GNU's long link."""

    pax_header: bytes = b""
    records: list[tuple[bytes, bytes]] = field(default_factory=list)
    long_link: bytes | None = None

    def add(self, flag: bytes, header: bytes, data: bytes) -> None:
        if flag in th.PAX:
            self.pax_header = header
            self.records += th.pax_records(data)
        elif flag == th.GNU_LONG_LINK:
            self.long_link = th.text(data)
        elif flag != th.GNU_LONG_NAME:
            raise IntegrityError("a tar header that is for all members stands before one of them")

    def renamed(self, block: bytearray, name: bytes, link: bytes | None) -> Iterable[bytes]:
        old = {keyword: value for keyword, value in self.records if keyword in _REWRITTEN}
        records = [record for record in self.records if record[0] not in _REWRITTEN]
        short_name = name
        if b"GNU.sparse.name" in old:
            # A tar that does not know of sparse files is to see by the name what it extracts, as GNU tar has it.
            records.append((b"GNU.sparse.name", name))
            directory, slash, base = name.rpartition(b"/")
            short_name = directory + slash + b"GNUSparseFile.0/" + base
        if not _put_name(block, short_name) or (b"path" in old and short_name is name):
            records.append((b"path", short_name))
        if link is None:
            link = old.get(b"linkpath", self.long_link)
        if link is not None and (not _put_link(block, link) or b"linkpath" in old):
            records.append((b"linkpath", link))
        return self._written(records, block)

    def _written(self, records: list[tuple[bytes, bytes]], block: bytearray) -> Iterable[bytes]:
        if self.pax_header:
            data = b"".join(pax_record(keyword, value) for keyword, value in records)
            if data:
                yield _extension(b"x", th.text(self.pax_header[:_NAME_BYTES]), data, self.pax_header)
        else:
            for keyword, flag in ((b"linkpath", th.GNU_LONG_LINK), (b"path", th.GNU_LONG_NAME)):
                for value in (value for key, value in records if key == keyword):
                    yield _extension(flag, _LONG_NAME_OWNER, value + b"\0")
        yield _sealed(block)


def _put_name(block: bytearray, name: bytes) -> bool:
    """Write as much of the name as has room; whether that is all of it."""
    block[:_NAME_BYTES] = name[:_NAME_BYTES].ljust(_NAME_BYTES, b"\0")
    if block[257:263] == _USTAR[:6]:
        block[345:500] = bytes(155)  # its prefix; in GNU's own format other things are there
    return len(name) <= _NAME_BYTES


def _put_link(block: bytearray, link: bytes) -> bool:
    block[157:257] = link[:_NAME_BYTES].ljust(_NAME_BYTES, b"\0")
    return len(link) <= _NAME_BYTES


def _extension(flag: bytes, name: bytes, data: bytes, like: bytes | None = None) -> bytes:
    """An extension header and its content; `like` gives the fields that say nothing."""
    block = bytearray(like or th.BLOCK)
    if like is None:
        block[:_NAME_BYTES] = name[:_NAME_BYTES].ljust(_NAME_BYTES, b"\0")
        block[100:124] = _number(0o644, 8) + _number(0, 8) + _number(0, 8)
        block[136:148] = _number(0, 12)
        block[257:265] = _USTAR
    block[124:136] = _number(len(data), 12)
    block[156:157] = flag
    return _sealed(block) + data + bytes(-len(data) % th.BLOCK)


def _number(value: int, width: int) -> bytes:
    """Octal digits and a NUL, or GNU's base-256 where they have no room."""
    if 0 <= value < 8 ** (width - 1):
        return b"%0*o\0" % (width - 1, value)
    return b"\x80" + value.to_bytes(width - 1, "big")


def _sealed(block: bytearray) -> bytes:
    """The header with its checksum."""
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)
