"""Single tar headers: the numbers, names and checksums of the 512-byte block, and the records of pax headers.

POSIX.1-2017 `pax`, sections "ustar Interchange Format" and "pax Extended Header", and the GNU tar manual, "Basic Tar
Format", whose field offsets these are. Stricter than Python's `int`: no signs, underscores or prefixes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from zlib import adler32

from backupd.errors import IntegrityError

BLOCK = 512
END_MARK = bytes(BLOCK)

# Type flags that are not members of their own but describe the next one. Solaris' tar writes X for x.
PAX = frozenset((b"x", b"X"))
PAX_GLOBAL = b"g"
GNU_LONG_NAME = b"L"
GNU_LONG_LINK = b"K"
EXTENSIONS = PAX | {PAX_GLOBAL, GNU_LONG_NAME, GNU_LONG_LINK}
GNU_SPARSE = b"S"
GNU_VOLUME_LABEL = b"V"
GNU_CONTINUATION = b"M"

# What has no content behind its header, whatever its size field or a pax record says (POSIX lets writers fill it in).
WITHOUT_CONTENT = frozenset((b"1", b"2", b"3", b"4", b"5", b"6"))

# Any other flag is a file: POSIX wants unknown types treated so. D is GNU's directory with a list of its names.
KINDS = {b"1": "hardlink", b"2": "symlink", b"3": "char", b"4": "block", b"5": "dir", b"6": "fifo", b"D": "dir"}

LARGEST = 2**63 - 1
ADLER_MODULUS = 65521
_TIME = re.compile(rb"(-?)([0-9]{1,20})(?:\.([0-9]*))?")


def number(field: bytes) -> int:
    """An octal field, or GNU's base-256 form: 80 hex and a positive number, or FF and a negative one."""
    if field[0] in (0x80, 0xFF):
        return int.from_bytes(field[1:], "big") - (256 ** (len(field) - 1) if field[0] == 0xFF else 0)
    digits = field.split(b"\0", 1)[0].strip(b" ")
    if not digits:
        return 0
    if not digits.isdigit() or b"8" in digits or b"9" in digits:
        raise IntegrityError("a tar header holds a field that is not a number")
    return int(digits, 8)


def natural(field: bytes) -> int:
    """A number that can be neither negative nor larger than 63 bits: a size, an owner, a device."""
    value = number(field)
    if not 0 <= value <= LARGEST:
        raise IntegrityError("a tar header holds an impossible number")
    return value


def decimal(value: bytes) -> int:
    """A natural number of a pax record."""
    if len(value) > 20 or not value.isdigit() or int(value) > LARGEST:
        raise IntegrityError("a pax header holds a value that is not a number")
    return int(value)


def nanoseconds(value: bytes) -> int:
    """A pax time, `[-]seconds[.fraction]`, exactly; what is finer than a nanosecond is cut towards the past."""
    time = _TIME.fullmatch(value)
    if time is None:
        raise IntegrityError("a pax header holds a time that is none")
    fraction = time[3] or b""
    nanoseconds = int(time[2]) * 1_000_000_000 + int(fraction[:9].ljust(9, b"0"))
    return clamped(-nanoseconds - bool(fraction[9:].strip(b"0")) if time[1] else nanoseconds)


def clamped(time: int) -> int:
    """The nearest time that fits into 64 bits: the years 1677 to 2262. Some file systems know others."""
    return max(-LARGEST - 1, min(time, LARGEST))


def text(field: bytes) -> bytes:
    """A field up to its first NUL."""
    return field.split(b"\0", 1)[0]


def byte_sum(data: bytes) -> int:
    """The sum of the bytes, modulo 65521: the lower half of Adler-32 (RFC 1950), many times as fast as `sum`."""
    return (adler32(data) & 0xFFFF) - 1


def check(header: bytes) -> None:
    """IntegrityError unless the header's checksum is right: the sum of its bytes, its own field taken as blanks."""
    field = header[148:156]
    missing = number(field) - (byte_sum(header) - byte_sum(field) + 8 * 32)
    if missing % ADLER_MODULUS == 0:
        return
    # Some old writers summed signed bytes (GNU tar manual, "Basic Tar Format").
    if (missing + 256 * sum(byte > 127 for byte in header[:148] + header[156:])) % ADLER_MODULUS:
        raise IntegrityError("not a tar stream, or a damaged one: a header's checksum is wrong")


def name(header: bytes) -> bytes:
    """The name that the header itself gives its member."""
    short = text(header[:100])
    if header[345] and header[257:263] == b"ustar\0":
        return text(header[345:500]) + b"/" + short
    return short


def padded(size: int) -> int:
    """`size` rounded up to whole blocks."""
    return -(-size // BLOCK) * BLOCK


def pax_records(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The records `"%d %s=%s\\n"` of an extended header; the number is the length of the whole record."""
    start = 0
    while start < len(data):
        blank = data.find(b" ", start, start + 10)
        length = data[start:blank]
        stop = start + int(length) if blank > 0 and length.isdigit() else 0
        equals = data.find(b"=", blank, stop)
        if not blank + 1 < equals < stop <= len(data) or data[stop - 1] != 0x0A:
            raise IntegrityError("a pax header holds a malformed record")
        yield data[blank + 1 : equals], data[equals + 1 : stop - 1]
        start = stop
