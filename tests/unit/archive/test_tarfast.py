"""The fast parser comes to what the general one comes to, and does take what it was made for."""

from __future__ import annotations

from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backupd.archive import TarWalker
from tests.support.tars import END, GNU, USTAR, header, padded, pax, walk

NAMES = st.one_of(
    st.sampled_from([b"./", b"./a/", b"./a//", b".//a", b"././a", b"./.", b"./..", b"a", b"./\xff", b"", b"./a\n"]),
    st.binary(min_size=1, max_size=100).map(lambda raw: (b"./" + raw.replace(b"\0", b"0"))[:100]),
)
TIMES = st.one_of(
    st.from_regex(rb"[0-9]{1,11}\.[0-9]{1,10}", fullmatch=True),
    st.sampled_from([b"9999999999.5", b"9223372036.854775807", b"-5.5", b"5", b"1700000000.123456789"]),
)
FIELDS = st.sampled_from(
    [
        {},
        {100: b"0100644\0"},
        {100: b"   644 \0"},
        {108: b"\x80" + bytes(6) + b"\7"},
        {136: b"77777777777\0"},
        {345: b"prefix"},
        {0: b"./a\0junk"},
        {157: b"link\0junk"},
        {500: b"junk"},
        {265: b"root"},
        {329: b"0000000\0000000000\0"},
    ]
)


@st.composite
def members(draw: st.DrawFn) -> bytes:
    flag = draw(st.sampled_from([b"0", b"0", b"1", b"2", b"5", b"\0", b"3", b"7"]))
    size = draw(st.sampled_from([0, 1, 511, 512, 513]))
    records = {}
    if draw(st.booleans()):
        records["path"] = draw(NAMES)
    if draw(st.booleans()):
        records["mtime"] = draw(TIMES)
    block = header(
        draw(NAMES),
        flag,
        size,
        link=draw(st.sampled_from([b"", b"target", b"t" * 100, b"\xff"])),
        magic=draw(st.sampled_from([USTAR, GNU, bytes(8)])),
        fields=draw(FIELDS),
    )
    content = padded(bytes(size)) if flag in (b"0", b"\0", b"7") else b""
    return (pax(**records) if records else b"") + block + content


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(members(), max_size=6), st.integers(1, 6000))
def test_fast_is_general(parts: list[bytes], piece: int) -> None:
    stream = b"".join(parts) + END
    assert walk(stream) == walk(stream, general=True) == walk(stream, piece)


@pytest.mark.parametrize(
    "stream",
    [
        header(),
        header(b"./directory/", b"5"),
        header(flag=b"2", link=b"target"),
        header(flag=b"1", link=b"./target"),
        header(magic=GNU),
        pax(mtime=b"1795380761.770417141") + header(),
        pax(mtime=b"1795380761.77") + header(b"./directory/", b"5"),
        pax(path="./ü".encode(), mtime=b"1795380761.770417141") + header(b"./\xc3\xbc"),
        pax(path=b"./" + b"n" * 400, mtime=b"1795380761.770417141") + header(b"./" + b"n" * 98),
    ],
)
def test_what_tar_writes_nearly_always_is_parsed_fast(stream: bytes) -> None:
    with mock.patch("backupd.archive.tarwalk.th.check", side_effect=AssertionError):
        assert len(TarWalker().feed(memoryview(stream * 3))) == 3
