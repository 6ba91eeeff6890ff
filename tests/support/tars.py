"""Tar streams for tests: built byte by byte, by Python, and by the tar programs of this machine."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path
from unittest import mock

from backupd.archive import Member, TarWalker, tarwalk

BLOCK = 512
END = bytes(2 * BLOCK)
USTAR = b"ustar\x0000"
GNU = b"ustar  \0"


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def header(
    name: bytes = b"./file",
    flag: bytes = b"0",
    size: int = 0,
    *,
    link: bytes = b"",
    magic: bytes = USTAR,
    fields: Mapping[int, bytes] | None = None,
) -> bytes:
    """A header with a right checksum. `fields` overwrites bytes from the given offsets on."""
    block = bytearray(BLOCK)
    standard = {
        0: name[:100],
        100: b"0000644\0",
        108: b"0001750\0",
        116: b"0001751\0",
        124: b"%011o\0" % size,
        136: b"15300653031\0",
        156: flag,
        157: link[:100],
        257: magic,
    }
    for start, value in (standard | dict(fields or {})).items():
        block[start : start + len(value)] = value
    return with_checksum(block) if 148 not in (fields or {}) else bytes(block)


def with_checksum(block: bytes | bytearray) -> bytes:
    block = bytearray(block)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def record(keyword: bytes, value: bytes) -> bytes:
    length = size = len(keyword) + len(value) + 3
    while len(b"%d" % length) + size != length:
        length = size + len(b"%d" % length)
    return b"%d %s=%s\n" % (length, keyword, value)


def extension(data: bytes, flag: bytes = b"x") -> bytes:
    """A header of the given type with `data` as its content."""
    return header(b"./PaxHeaders/file", flag, len(data)) + padded(data)


def pax(flag: bytes = b"x", /, **records: bytes) -> bytes:
    """A pax header. In keywords, `__` stands for a dot."""
    return extension(b"".join(record(key.replace("__", ".").encode(), value) for key, value in records.items()), flag)


def walk(stream: bytes, piece: int = 1 << 20, *, general: bool = False) -> tuple[list[Member], set[str]]:
    """What a TarWalker finds that is fed pieces of a size; with `general` only by its general parser."""
    walker = TarWalker()
    members = []
    view = memoryview(stream)
    with mock.patch.object(tarwalk, "common_members", lambda _data, here, *_: here) if general else nullcontext():
        for start in range(0, len(stream), piece):
            members += walker.feed(view[start : start + piece])
        walker.finish()
    assert walker.members == len(members)
    return members, walker.features


def python_tar(members: Iterable[tuple[tarfile.TarInfo, bytes]], *, tar_format: int = tarfile.PAX_FORMAT) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tar_format, encoding="utf-8") as tar:
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def tar_of(directory: Path, *options: str, program: tuple[str, ...] = ("tar",)) -> bytes:
    command = [*program, "-C", str(directory), *options, "-cf", "-", "."]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout


def awkward_tree(root: Path, *, short_names: bool = False) -> None:
    """Files of every kind that a tar tells apart and that need no rights to make, with names that are hard to write."""
    (root / "directory" / "empty").mkdir(parents=True)
    (root / "directory" / "file").write_bytes(b"x" * 1000)
    (root / "empty").touch(mode=0o4711)
    (root / "block").write_bytes(b"y" * 512)
    (root / "symlink").symlink_to("../nowhere/else")
    (root / "hardlink").hardlink_to(root / "directory" / "file")
    os.mkfifo(root / "fifo")
    (root / "new\nline = 5").write_bytes(b"z" * 513)
    (root / "ümlaut").write_bytes(b"1")
    Path(os.fsdecode(os.fsencode(root) + b"/not-\xff\xfe-utf-8")).write_bytes(b"2")
    (root / "-option").write_bytes(b"3")
    (root / "..dots").write_bytes(b"3")
    for length in (94, 95, 96, 97, 98) if short_names else (95, 97, 98, 99, 100, 101, 155, 200, 255):
        (root / ("n" * length)).write_bytes(b"4" * length)
    if not short_names:
        deep = root.joinpath(*("d" * 90 for _ in range(8)))
        deep.mkdir(parents=True)
        (deep / "file").write_bytes(b"5" * 600)
        (root / "long-link").symlink_to("t" * 300)
    for number, time in enumerate((0, 1, 10**9, 1_500_000_000_123_456_789, 1_600_000_000_120_000_000)):
        file = root / f"time-{number}"
        file.touch()
        os.utime(file, ns=(time, time))


def sparse_file(path: Path, extents: int) -> None:
    """A file with as many extents of data, each behind a hole."""
    with path.open("wb") as file:
        for number in range(extents):
            file.seek(1 << 16, os.SEEK_CUR)
            file.write(b"%06d" % number * 1000)
        file.truncate(file.tell() + (1 << 20))
