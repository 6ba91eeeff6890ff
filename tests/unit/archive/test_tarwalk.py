"""What TarWalker makes of well-formed streams that are built byte by byte."""

from __future__ import annotations

import pytest

from backupd.archive import Member
from tests.support.tars import END, GNU, extension, header, padded, pax, walk


def only(stream: bytes) -> Member:
    members, _ = walk(stream + END)
    assert [walk(stream + END, piece)[0] for piece in (1, 7, 512, 513)] == [members] * 4
    assert walk(stream + END, general=True)[0] == members
    (member,) = members
    return member


def test_a_plain_member() -> None:
    assert only(header(size=700) + bytes(1024)) == Member(
        path="file",
        kind="file",
        offset=0,
        mode=0o644,
        uid=1000,
        gid=1001,
        mtime=0o15300653031 * 10**9,
        size=700,
    )


@pytest.mark.parametrize(
    ("flag", "kind"),
    [
        *((flag, "file") for flag in (b"0", b"\0", b"7", b"Z")),
        *((b"1", "hardlink"), (b"2", "symlink"), (b"3", "char"), (b"4", "block")),
        *((b"5", "dir"), (b"6", "fifo"), (b"D", "dir")),
    ],
)
def test_kinds(flag: bytes, kind: str) -> None:
    assert only(header(flag=flag)).kind == kind


@pytest.mark.parametrize(
    ("name", "path"),
    [
        (b"./", "."),
        (b".", "."),
        (b"./a/", "a"),
        (b"a", "a"),
        (b".//a//", "a"),
        (b"././a", "a"),
        (b"./.a", ".a"),
        (b"./..", ".."),
        (b"/", "/"),
        (b"/a", "/a"),
        (b"./" + b"n" * 98, "n" * 98),
        (b"n" * 100, "n" * 100),
        (b"./\xff", "\udcff"),
    ],
)
def test_paths(name: bytes, path: str) -> None:
    assert only(header(name, flag=b"5")).path == path
    assert only(pax(path=name) + header(flag=b"5")).path == path
    assert only(pax(path=name, mtime=b"5.25") + header(b"./short", flag=b"5")).path == path


def test_prefix_belongs_to_ustar_only() -> None:
    assert only(header(b"b", fields={345: b"a"})).path == "a/b"
    assert only(header(b"b", magic=GNU, fields={345: b"a"})).path == "b"


def test_v7_directories_end_in_a_slash() -> None:
    assert only(header(b"./a/", flag=b"\0", magic=bytes(8))).kind == "dir"
    assert only(header(b"./a/")).kind == "dir"


def test_the_size_field_of_what_has_no_content_is_ignored() -> None:
    for flag in b"123456":
        assert only(pax(size=b"5000") + header(flag=bytes([flag]), size=4000)).size == 0


@pytest.mark.parametrize("flag", [b"x", b"X"])
def test_pax_values_go_before_the_header(flag: bytes) -> None:
    records = pax(flag, path=b"./p", linkpath=b"l", uid=b"3000000", gid=b"3000001", size=b"513", mtime=b"-1.5")
    file = only(records + header() + padded(bytes(513)))
    assert (file.path, file.uid, file.gid, file.size, file.mtime) == ("p", 3000000, 3000001, 513, -1_500_000_000)
    assert only(records + header(flag=b"2", link=b"other")).link == "l"
    assert walk(records + header(flag=b"2") + END)[1] == {"long-name", "nanoseconds"}


def test_empty_pax_values_are_as_if_they_were_not_there() -> None:
    assert only(pax(path=b"", uid=b"", gid=b"", size=b"", mtime=b"") + header()) == only(header())


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        (b"0", 0),
        (b"0.5", 500_000_000),
        (b"1.", 10**9),
        (b"5.0000000019", 5_000_000_001),
        (b"-5.0000000019", -5_000_000_002),
        (b"-0.25", -250_000_000),
        (b"-5.0000000010", -5_000_000_001),
        (b"9" * 20, 2**63 - 1),
        (b"-" + b"9" * 20, -(2**63)),
    ],
)
def test_pax_times(text: bytes, nanoseconds: int) -> None:
    assert only(pax(mtime=text) + header()).mtime == nanoseconds


def test_global_headers_hold_for_all_that_follow() -> None:
    stream = pax(b"g", uid=b"7", comment=b"x") + header(b"./a") + pax(uid=b"8") + header(b"./b") + header(b"./c") + END
    members, _ = walk(stream)
    assert [(member.path, member.uid, member.offset) for member in members] == [
        ("a", 7, 1024),
        ("b", 8, 1536),
        ("c", 7, 3072),
    ]
    assert walk(pax(b"g", uid=b"7") + END) == ([], set())


def test_long_names_of_gnu() -> None:
    stream = extension(b"./" + b"n" * 600 + b"\0", b"L") + extension(b"t" * 200 + b"\0", b"K") + header(flag=b"2")
    member = only(stream)
    assert (member.path, member.link, member.offset) == ("n" * 600, "t" * 200, 0)


def test_numbers_in_base_256() -> None:
    large = {
        124: b"\x80" + (9 << 30).to_bytes(11, "big"),
        136: b"\xff" * 12,
        108: b"\x80" + (3_000_000).to_bytes(7, "big"),
    }
    walked = header(flag=b"5", fields=large)
    assert (only(walked).uid, only(walked).mtime) == (3_000_000, -(10**9))


def test_numbers_as_old_programs_write_them() -> None:
    odd = {100: b"   644 \0", 108: b"  1750\0 ", 116: bytes(8), 124: b"          3 ", 136: b" 5\0garbage!!"}
    member = only(header(fields=odd) + bytes(512))
    assert (member.mode, member.uid, member.gid, member.size, member.mtime) == (0o644, 1000, 0, 3, 5 * 10**9)


def test_signed_checksums() -> None:
    block = bytearray(header(b"./\xe9t\xe9"))
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(byte - 256 if byte > 127 else byte for byte in block)
    assert only(bytes(block)).path == "\udce9t\udce9"


def test_devices() -> None:
    assert only(header(flag=b"3", fields={329: b"0000010\0", 337: b"0000377\0"})).device == (8, 255)


@pytest.mark.parametrize(
    ("records", "name"),
    [
        ({"GNU__sparse__size": b"99999", "GNU__sparse__numblocks": b"0"}, "file"),
        ({"GNU__sparse__size": b"99999", "GNU__sparse__map": b"0,5", "GNU__sparse__name": b"./sparse"}, "sparse"),
        ({"GNU__sparse__realsize": b"99999", "GNU__sparse__major": b"1", "GNU__sparse__name": b"./sparse"}, "sparse"),
    ],
)
def test_pax_sparse_files(records: dict[str, bytes], name: str) -> None:
    stream = pax(**records) + header(size=512) + bytes(512)
    assert (only(stream).size, only(stream).path) == (99999, name)
    assert walk(stream + END)[1] == {"sparse"}


def test_old_sparse_files_with_further_maps() -> None:
    more, last = bytes(504) + b"\1" + bytes(7), bytes(512)
    block = header(flag=b"S", size=600, magic=GNU, fields={482: b"\1", 483: b"%011o\0" % 10**9})
    stream = block + more + more + last + bytes(1024) + header(b"./next") + END
    for piece in (1, 512, 600, 1 << 20):
        members, features = walk(stream, piece)
        assert [(member.path, member.size, member.offset) for member in members] == [
            ("file", 10**9, 0),
            ("next", 0, 512 * 6),
        ]
        assert features == {"sparse"}


def test_volume_labels_are_no_members() -> None:
    assert only(header(b"label", flag=b"V") + header(b"./next")).offset == 512


def test_features_of_attributes() -> None:
    stream = pax(SCHILY__xattr__user__x=b"\0\n=1", SCHILY__acl__access=b"u::r") + header() + END
    assert walk(stream)[1] == {"xattr", "acl"}


def test_only_the_end_mark_and_what_follows_it() -> None:
    assert walk(END) == ([], set())
    assert walk(bytes(10240)) == ([], set())
    assert walk(bytes(512)) == ([], set())
    assert len(walk(header() + END + header() + b"anything")[0]) == 1
