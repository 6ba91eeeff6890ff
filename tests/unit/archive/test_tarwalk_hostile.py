"""Whatever a TarWalker is fed, it ends in members or in IntegrityError, soon and in bounded memory."""

from __future__ import annotations

import contextlib
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backupd.archive import TarWalker
from backupd.errors import IntegrityError
from tests.support.tars import BLOCK, END, GNU, extension, header, pax, python_tar, walk, with_checksum

BAD_OCTAL = [
    b"+0000000001",
    b"0000_000001",
    b"0o000000001",
    b"-0000000001",
    b"00000000008",
    b"0x1",
    b"1 1",
    "٣".encode(),
]
BAD_DECIMAL = [b"+1", b"-1", b"1_0", b" 1", b"1 ", b"0x1", "٣".encode(), b"1" * 21, b"%d" % 2**63, b"1.5", b"1\0"]


@pytest.mark.parametrize("field", BAD_OCTAL)
@pytest.mark.parametrize("start", [124, 136])
def test_fields_that_are_no_octal_numbers(field: bytes, start: int) -> None:
    rejected(header(fields={start: field.ljust(12, b"\0")}))


@pytest.mark.parametrize("value", BAD_DECIMAL)
@pytest.mark.parametrize("keyword", ["size", "uid", "gid", "GNU__sparse__realsize", "GNU__sparse__size"])
def test_records_that_are_no_natural_numbers(keyword: str, value: bytes) -> None:
    rejected(pax(**{keyword: value}) + header())


@pytest.mark.parametrize(
    "value", [b"+1", b"1_0", b"--1", b"1.-5", b"1,5", b".5", b"1e5", b"nan", "٣".encode(), b"1" * 21]
)
def test_records_that_are_no_times(value: bytes) -> None:
    rejected(pax(mtime=value) + header())


@pytest.mark.parametrize(
    "data",
    [
        *(b"5", b"5 ", b" a=b\n", b"x a=b\n", b"6 a=b\n ", b"7 a=b\n", b"5 a=b\n", b"4 =b\n", b"5 ab\n", b"6 a=bc"),
        *(b"0 a=b\n", b"-6 a=b\n", b"+6 a=b\n", b"1_0 ab=cd\n", b"99999999999999999999 a=b\n", b"6 a=b\n\0\0\0", b"2 "),
        *(b"1 \n", b"3 \n", "٦ a=b\n".encode(), b"06\ta=b\n", b"6=a b\n", b"\0" * 30, b"9" * 600 + b" a=b\n"),
    ],
)
def test_malformed_records(data: bytes) -> None:
    rejected(extension(data) + header())
    rejected(extension(data, b"g") + header())


@pytest.mark.parametrize(
    "stream",
    [
        b"",
        b"x",
        b"x" * 512,
        header(),
        header()[:511],
        header(size=1) + END[:511],
        header(size=513) + END[:1023],
        pax(path=b"p"),
        pax(path=b"p") + END,
        pax(path=b"p")[:-1],
        extension(b"name\0", b"L") + END,
        header(fields={148: b"0000000\0"}) + END,
        header(fields={148: b"garbage\0"}) + END,
        header(flag=b"M") + END,
        header(flag=b"S", magic=GNU, fields={482: b"\1"}),
        header(flag=b"S", magic=GNU, fields={482: b"\1"}) + bytes(504) + b"\1" + bytes(7),
        header(flag=b"x", size=1 << 30) + END,
        header(flag=b"L", fields={124: b"\x80" + b"\x7f" * 11}) + END,
        header(flag=b"g", fields={124: b"\xff" * 12}) + END,
        header(fields={124: b"\xff" * 12}) + END,
        header(fields={124: b"\x80" + b"\xff" * 11}) + END,
        header(fields={108: b"\xff" * 8}) + END,
        pax(size=b"%d" % (2**63 - 1)) + header() + END,
    ],
)
def test_broken_streams(stream: bytes) -> None:
    rejected(stream, end=b"")


def rejected(stream: bytes, end: bytes = END) -> None:
    for piece in (len(stream) + len(end) + 1, 100):
        with pytest.raises(IntegrityError):
            walk(stream + end, piece)


def test_a_large_extension_header_in_small_pieces_takes_linear_time() -> None:
    """Were it parsed or copied anew with every piece, this would take hours."""
    value = b"v" * (12 << 20)
    members, features = walk(pax(SCHILY__xattr__user__x=value, path=b"./p") + header() + END, piece=64)
    assert (members[0].path, features) == ("p", {"xattr", "long-name"})


def test_many_extension_headers_before_one_member() -> None:
    members, _ = walk(pax(uid=b"5") * 20_000 + extension(b"./n\0", b"L") * 5_000 + header() + END, piece=1000)
    assert [(member.path, member.uid, member.offset) for member in members] == [("n", 5, 0)]


def test_records_that_nobody_needs_are_not_kept() -> None:
    walker = TarWalker()
    for number in range(1000):
        assert not walker.feed(memoryview(pax(**{f"junk{number}": b"j" * 400})))
    assert not walker._records
    assert not walker._tail


def some_members(seed: int) -> list[tuple[tarfile.TarInfo, bytes]]:
    members = []
    for number, name in enumerate(("./a", "./" + "n" * 150, "./ü", "./" + "d/" * 80 + "f", "./z")):
        info = tarfile.TarInfo(name)
        info.type = (tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE, tarfile.LNKTYPE, tarfile.REGTYPE)[
            (number + seed) % 5
        ]
        info.linkname = "t" * (number * 60)
        info.mtime = 1_700_000_000.25 + number
        members.append((info, b"c" * (number * 300) if info.isreg() else b""))
    return members


BASES = [
    *(
        python_tar(some_members(seed), tar_format=kind)
        for seed in range(5)
        for kind in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT)
    ),
    pax(path=b"./p", mtime=b"5.25") + header() + pax(GNU__sparse__size=b"9", uid=b"8") + header() + END,
    header(flag=b"S", magic=GNU, fields={482: b"\1"}) + bytes(504) + b"\1" + bytes(519) + header() + END,
]


@settings(max_examples=400, deadline=None, derandomize=True)
@given(
    st.sampled_from(BASES),
    st.lists(st.tuples(st.integers(0, 1 << 16), st.binary(min_size=1, max_size=12)), min_size=1, max_size=5),
    st.booleans(),
    st.integers(1, 3000),
)
def test_mutations(base: bytes, mutations: list[tuple[int, bytes]], repair: bool, piece: int) -> None:
    """Members or IntegrityError, and the same however it is parsed; also where all checksums are right."""
    damaged = bytearray(base)
    for place, value in mutations:
        start = place % len(damaged)
        damaged[start : start + len(value)] = value
        first = start // BLOCK * BLOCK
        if repair and damaged[first + 257 : first + 262] == b"ustar":
            damaged[first : first + BLOCK] = with_checksum(damaged[first : first + BLOCK])
    stream = bytes(damaged)
    assert outcome(stream, 1 << 20) == outcome(stream, piece) == outcome(stream, 1 << 20, general=True)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.binary(max_size=3000), st.integers(1, 1000))
def test_arbitrary_bytes(data: bytes, piece: int) -> None:
    with contextlib.suppress(IntegrityError):
        walk(data, piece)


def outcome(stream: bytes, piece: int, *, general: bool = False) -> object:
    try:
        return walk(stream, piece, general=general)
    except IntegrityError as exc:
        return str(exc)
