"""The members that GNU tar and BusyBox tar write nearly always, parsed by one regular expression.

A pax header that holds only a path and a time, if there is any, and then the header of a file, directory or link whose
name begins with `./` and whose numbers are written plainly. Whatever differs is left to the general parser in
`tarwalk`: where both can parse, they come to the same result, this one in half the time.
"""

from __future__ import annotations

import re
from functools import lru_cache
from zlib import adler32

from backupd.archive import tarheader as th
from backupd.archive.member import Member, decoded, relative

# The numbers behind the lines say where in its header a line begins. Groups without a name hold nothing but a position.
# The size of a pax header has at most three octal digits, since its records are to fit into one block.
_MEMBER = re.compile(
    rb"""(?sx)
    (?:
        .{124} 00000000 (?P<pax_size>[0-7]{3}) \0 .{12}                                 # 0
        (?P<pax_checksum>[0-7]{6}\0[ ]) x .{355}                                        # 148
        (?= (?: (?P<path_length>[0-9]{2,3}) [ ]path= (?P<path>[^\0\n]+) \n )?           # 512
            (?P<time_length>[0-9]{2}) [ ]mtime= (?P<seconds>[1-8][0-9]{9}|[0-9]{1,9}) \.
                (?P<fraction>[0-9]{1,9}) \n () )
        .{512}
    )?
    \./ (?! / | \./ ) (?P<name>[^\0]{1,98}) \0{0,97}                                    # 0
    (?P<owner>000[0-7]{4} \0 [0-7]{7} \0 [0-7]{7}) \0                                   # 100
    (?P<size>[0-7]{11}) \0 (?P<time>[0-7]{11}) \0 (?P<checksum>[0-7]{6}\0[ ])           # 124
    (?P<flag>[0125]) (?: \0{100} | (?P<link>[^\0]{1,100}) \0{0,99} )                    # 156
    ustar .{83} \0 .{166}                                                                    # 257
    """
)
_END_OF_RECORDS = _MEMBER.groupindex["fraction"] + 1
_OWNER = _MEMBER.groupindex["owner"]
_OWNER_START = 100
_KINDS = {b"0": "file", b"1": "hardlink", b"2": "symlink", b"5": "dir"}
_LINKS = (b"1", b"2")


def common_members(data: memoryview, here: int, position: int, found: list[Member], features: set[str]) -> int:
    """Append to `found` the members from `here` on, up to the first that is not as simple as that.

    `data[0]` is at `position` in the stream. Returns where the general parser goes on, maybe beyond the data's end.
    """
    while match := _MEMBER.match(data, here):
        (
            pax_size, pax_checksum, path_length, path, time_length, seconds, fraction, _,
            name, owner, size, time, checksum, flag, link,
        ) = match.groups()  # fmt: skip
        start = here
        if pax_size is not None:
            records_size = match.end(_END_OF_RECORDS) - here - th.BLOCK
            is_intact = adler32(data[here : here + th.BLOCK]) & 0xFFFF == _low_adler(pax_checksum)
            if not is_intact or not _are_whole(records_size, pax_size, path_length, path, time_length):
                break
            start += 2 * th.BLOCK
        # The header's fields fill it only if every one is as long as it should be.
        next_start = start + th.BLOCK
        is_filled = match.start(_OWNER) == start + _OWNER_START and match.end() == next_start
        if not is_filled or adler32(data[start:next_start]) & 0xFFFF != _low_adler(checksum):
            break
        content = 0
        if flag == b"0":
            if (path or name).endswith(b"/"):
                break
            content = int(size, 8)
        mode, uid, gid = _owner(owner)
        member = Member(
            path=decoded(name.rstrip(b"/")) if path is None else relative(path),
            kind=_KINDS[flag],
            offset=position + here,
            mode=mode,
            uid=uid,
            gid=gid,
            mtime=int(time, 8) * 1_000_000_000 if pax_size is None else int(seconds + fraction.ljust(9, b"0")),
            size=content,
            link=decoded(link or b"") if flag in _LINKS else "",
        )
        found.append(member)
        if pax_size is not None:
            features.add("nanoseconds")
        if path is not None:
            features.add("long-name")
        here = next_start + -(-content // th.BLOCK) * th.BLOCK
    return here


def _are_whole(size: int, pax_size: bytes, path_length: bytes | None, path: bytes, time_length: bytes) -> bool:
    """Whether the records, `size` bytes in all, fill the pax header and have the lengths that they claim."""
    if path_length is None:
        return size == int(pax_size, 8) == int(time_length)
    path_size = len(path_length) + len(b" path=\n") + len(path)
    return size == int(pax_size, 8) == path_size + int(time_length) and path_size == int(path_length)


@lru_cache(maxsize=1024)
def _owner(fields: bytes) -> tuple[int, int, int]:
    """Mode, user and group. Few combinations occur in one tree."""
    mode, uid, gid = fields.split(b"\0")
    return int(mode, 8), int(uid, 8), int(gid, 8)


@lru_cache(maxsize=16384)
def _low_adler(checksum: bytes) -> int:
    """The lower half of Adler-32 of a header with this checksum field; see `tarheader.check`."""
    return (int(checksum[:6], 8) - 8 * 32 + sum(checksum) + 1) % th.ADLER_MODULUS
