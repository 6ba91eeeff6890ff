"""Follows a tar stream that flows by and says what its members are, without touching their contents.

Python's tarfile reads 18,000 members a second; this walks the formats that GNU tar, BusyBox tar and Python write
(ustar, pax, GNU, v7) many times as fast, which is what a volume of a million small files needs.
"""

from __future__ import annotations

from collections.abc import Callable

from backupd.archive import tarheader as th
from backupd.archive.member import Member, decoded, relative
from backupd.archive.tarfast import common_members
from backupd.errors import IntegrityError
from backupd.model import MIB

__all__ = ["Member", "TarWalker"]

# Names, links and attributes of one member; the kernel's own limits (PATH_MAX, XATTR_SIZE_MAX) are far below.
_MAXIMUM_EXTENSION = 16 * MIB

# The pax records that are kept until their member comes, and what features of a tar the others ask for.
_USED = frozenset(b"path linkpath size uid gid mtime GNU.sparse.name GNU.sparse.realsize GNU.sparse.size".split())
_FEATURES = {b"mtime": "nanoseconds", b"path": "long-name", b"linkpath": "long-name", b"size": "long-name"}
_FEATURE_PREFIXES = ((b"SCHILY.xattr.", "xattr"), (b"SCHILY.acl.", "acl"), (b"GNU.sparse.", "sparse"))


class TarWalker:
    """Feed it the stream in pieces; it returns the members whose headers have gone by.

    `features` collects what the stream needs of the tar that extracts it: `sparse`, `xattr`, `acl`, `long-name`,
    `nanoseconds`. What follows the end mark, which is at `end`, is ignored, as tar does. `is_plain` is False once there
    was a header that belongs to no one member: pax globals, a volume's label.

    Memory: one extension header, at most 16 MiB.
    Time: linear in the number of blocks that are not content, however small the pieces are.
    """

    def __init__(self) -> None:
        self.position = 0
        self.members = 0
        self.features: set[str] = set()
        self.end: int | None = None
        self.is_plain = True
        # What comes next: so many bytes to skip, then so many for `_take`; what of these has come is kept in `_tail`.
        self._skip = 0
        self._needed = th.BLOCK
        self._take: Callable[[bytes, int], None] = self._header
        self._tail = bytearray()
        # What is known of the member whose extension headers have come: where it starts and its pax records.
        self._start: int | None = None
        self._records: dict[bytes, bytes] = {}
        self._globals: dict[bytes, bytes] = {}
        self._extension_flag = b""
        self._extension_size = 0
        self._skip_later = 0
        self._found: list[Member] = []

    def feed(self, data: memoryview) -> list[Member]:
        """The next piece of the stream. IntegrityError if this is not a tar stream."""
        self._found = []
        here = 0
        end = len(data)
        while here < end and self.end is None:
            if self._skip:
                skip = min(self._skip, end - here)
                self._skip -= skip
                here += skip
            elif self._tail or end - here < self._needed:
                part = data[here : here + self._needed - len(self._tail)]
                self._tail += part
                here += len(part)
                if len(self._tail) == self._needed:
                    taken = bytes(self._tail)
                    self._tail.clear()
                    self._take(taken, self.position + here - len(taken))
            else:
                here = self._go_on(data, here)
        self.position += end
        self.members += len(self._found)
        return self._found

    @property
    def undecided(self) -> int:
        """Where in the stream the headers begin that are not there as a whole; all before them has been returned."""
        if self._start is not None:
            return self._start
        return self.position - (len(self._tail) if self._take == self._header else 0)

    @property
    def content_ahead(self) -> int:
        """So many bytes of the current member's content, padding included, are still to come."""
        return self._skip

    def finish(self) -> None:
        """The stream is over: IntegrityError if it was not over at a member's end."""
        if self._skip or self._tail or self._start is not None or self._take != self._header:
            raise IntegrityError("the tar stream is cut short in the middle of a member")
        if self.end is None:
            raise IntegrityError("the tar stream is cut short: it has no end mark")

    def _go_on(self, data: memoryview, here: int) -> int:
        """Take what is wholly in `data`; returns where in it to go on."""
        if self._start is None and not self._globals and self._take == self._header:
            start = here
            here = common_members(data, here, self.position, self._found, self.features)
            if here > start:
                self._skip = max(0, here - len(data))
                return min(here, len(data))
        taken = data[here : here + self._needed].tobytes()
        self._take(taken, self.position + here)
        return here + len(taken)

    def _header(self, header: bytes, position: int) -> None:
        if header == th.END_MARK:
            if self._start is not None:
                raise IntegrityError("the tar stream ends where a member was announced")
            self.end = position
            return
        th.check(header)
        flag = header[156:157]
        if flag == th.GNU_CONTINUATION:
            raise IntegrityError("the tar stream is a part of an archive of several volumes")
        if flag == th.PAX_GLOBAL:
            self.is_plain = False
        elif self._start is None:
            self._start = position
        if flag in th.EXTENSIONS:
            self._announce(flag, th.natural(header[124:136]))
        else:
            self._member(header, flag)

    def _announce(self, flag: bytes, size: int) -> None:
        """An extension header of `size` bytes follows."""
        if size > _MAXIMUM_EXTENSION:
            raise IntegrityError("a tar header is longer than any real one")
        if size:
            self._extension_flag = flag
            self._extension_size = size
            self._needed = th.padded(size)
            self._take = self._extension

    def _extension(self, data: bytes, _position: int) -> None:
        self._needed = th.BLOCK
        self._take = self._header
        flag = self._extension_flag
        data = data[: self._extension_size]
        if flag == th.GNU_LONG_NAME:
            self._records[b"path"] = th.text(data)
        elif flag == th.GNU_LONG_LINK:
            self._records[b"linkpath"] = th.text(data)
        else:
            records = self._globals if flag == th.PAX_GLOBAL else self._records
            for keyword, value in th.pax_records(data):
                self._note_feature(keyword)
                if keyword in _USED:
                    records[keyword] = value

    def _note_feature(self, keyword: bytes) -> None:
        if feature := _FEATURES.get(keyword):
            self.features.add(feature)
        else:
            self.features.update(feature for prefix, feature in _FEATURE_PREFIXES if keyword.startswith(prefix))

    def _member(self, header: bytes, flag: bytes) -> None:
        assert self._start is not None  # _header saw to it
        records = self._globals | self._records if self._globals else self._records
        size = 0
        if flag not in th.WITHOUT_CONTENT:
            size = th.decimal(records[b"size"]) if records.get(b"size") else th.natural(header[124:136])
        self._skip = th.padded(size)
        if flag == th.GNU_SPARSE:
            self.features.add("sparse")
            size = th.natural(header[483:495])
            if header[482]:
                self._take = self._sparse_map
                self._skip, self._skip_later = 0, self._skip
        if flag == th.GNU_VOLUME_LABEL:
            self.is_plain = False
        else:
            self._found.append(_member(header, records, size, self._start))
        self._records = {}
        self._start = None

    def _sparse_map(self, block: bytes, _position: int) -> None:
        """A block that continues the map of an old GNU sparse header; its content follows the last one."""
        if not block[504]:
            self._take = self._header
            self._skip = self._skip_later


def _member(header: bytes, records: dict[bytes, bytes], size: int, offset: int) -> Member:
    get = records.get
    flag = header[156:157]
    kind = th.KINDS.get(flag, "file")
    path = get(b"GNU.sparse.name") or get(b"path") or th.name(header)
    link = ""
    device = None
    if kind in ("symlink", "hardlink"):
        link = decoded(get(b"linkpath") or th.text(header[157:257]))
    elif kind in ("char", "block"):
        device = (th.natural(header[329:337]), th.natural(header[337:345]))
    elif kind == "file":
        if real_size := get(b"GNU.sparse.realsize") or get(b"GNU.sparse.size"):
            size = th.decimal(real_size)
        if path.endswith(b"/"):
            kind = "dir"  # v7 tar had no type for directories
    return Member(
        path=relative(path),
        kind=kind,
        offset=offset,
        mode=th.number(header[100:108]) & 0o7777,
        uid=th.decimal(uid) if (uid := get(b"uid", b"")) else th.natural(header[108:116]),
        gid=th.decimal(gid) if (gid := get(b"gid", b"")) else th.natural(header[116:124]),
        mtime=th.nanoseconds(mtime) if (mtime := get(b"mtime", b"")) else _header_time(header),
        size=size if kind == "file" else 0,
        link=link,
        device=device,
    )


def _header_time(header: bytes) -> int:
    return th.clamped(th.number(header[136:148]) * 1_000_000_000)
