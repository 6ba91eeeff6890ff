"""Single tar headers: the numbers, names and checksums of the 512-byte block.

POSIX.1-2017 `pax`, section "ustar Interchange Format", and the GNU tar manual, "Basic Tar Format", whose field offsets
these are.
"""

from __future__ import annotations

from backupd.errors import IntegrityError

BLOCK = 512

# Type flags that are not members of their own but describe the next one.
PAX = b"x"
PAX_GLOBAL = b"g"
GNU_LONG_NAME = b"L"
GNU_LONG_LINK = b"K"
GNU_SPARSE = b"S"
EXTENSIONS = frozenset((PAX, PAX_GLOBAL, GNU_LONG_NAME, GNU_LONG_LINK))

# What has no content behind its header, whatever its size field says (links: POSIX lets writers fill it in).
_WITHOUT_CONTENT = frozenset((b"1", b"2", b"3", b"4", b"5", b"6"))

KINDS = {
    b"0": "file",
    b"\0": "file",
    b"7": "file",
    b"S": "file",
    b"1": "hardlink",
    b"2": "symlink",
    b"3": "char",
    b"4": "block",
    b"5": "dir",
    b"6": "fifo",
}


def number(field: bytes) -> int:
    """An octal field, or GNU's base-256 form, signed, marked by the top bit of its first byte."""
    try:
        return int(field[:-1], 8) if field[-1] in b"\0 " else _odd_number(field)
    except ValueError:
        return _odd_number(field)


def _odd_number(field: bytes) -> int:
    if field[0] & 0x80:
        value = int.from_bytes(field, "big") & ((1 << (8 * len(field) - 1)) - 1)
        return value - (1 << (8 * len(field) - 1)) if field[0] & 0x40 else value
    digits = field.split(b"\0", 1)[0].strip()
    try:
        return int(digits, 8) if digits else 0
    except ValueError as exc:
        raise IntegrityError("a tar header holds a field that is not a number") from exc


def text(field: bytes) -> bytes:
    """A field up to its first NUL."""
    return field.split(b"\0", 1)[0]


def check(header: bytes) -> None:
    """IntegrityError unless the header's checksum is right: the sum of its bytes, its own field taken as blanks."""
    expected = number(header[148:156])
    unsigned = sum(header) - sum(header[148:156]) + 8 * 32
    if unsigned == expected:
        return
    # Some old writers summed signed bytes (GNU tar manual, "Basic Tar Format").
    if unsigned - 256 * sum(byte > 127 for byte in header[:148] + header[156:]) != expected:
        raise IntegrityError("not a tar stream, or a damaged one: a header's checksum is wrong")


def content_size(header: bytes) -> int:
    """How many bytes of content follow the header, without padding."""
    return 0 if header[156:157] in _WITHOUT_CONTENT else number(header[124:136])


def padded(size: int) -> int:
    """`size` rounded up to whole blocks."""
    return -(-size // BLOCK) * BLOCK


def pax_records(data: bytes) -> dict[bytes, bytes]:
    """The records `"%d %s=%s\\n"` of an extended header; the number is the length of the whole record."""
    records: dict[bytes, bytes] = {}
    start = 0
    end = len(data)
    while start < end:
        blank = data.find(b" ", start, start + 21)
        try:
            stop = start + int(data[start:blank])
        except ValueError as exc:
            raise IntegrityError("a pax header holds a record without a length") from exc
        keyword, equals, value = data[blank + 1 : stop - 1].partition(b"=")
        if blank < 0 or stop > end or not equals or data[stop - 1] != 0x0A:
            raise IntegrityError("a pax header holds a malformed record")
        records[keyword] = value
        start = stop
    return records
