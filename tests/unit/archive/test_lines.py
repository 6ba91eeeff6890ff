"""Indexes and file lists: round trips, and what becomes of damaged ones."""

from __future__ import annotations

import contextlib
import io
import tracemalloc
from collections.abc import Callable, Iterator

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from backupd.archive import ChunkRef, FileListWriter, Index, IndexWriter, Member, read_file_list
from backupd.archive.index import LARGEST_CHUNK
from backupd.archive.lines import LineWriter, read_lines
from backupd.errors import IntegrityError
from backupd.model import MIB

NAMES = st.one_of(
    st.text(max_size=40),
    st.binary(max_size=40).map(lambda raw: raw.decode("utf-8", "surrogateescape")),
    st.sampled_from(['path_bytes"', '"link_bytes":"eA=="', "\n", "\\", "\udcff\udcfe"]),
).filter(lambda name: not any("\ud800" <= character < "\udc80" for character in name))
MEMBERS = st.builds(
    Member,
    path=NAMES,
    link=NAMES,
    kind=st.sampled_from(["file", "dir", "symlink"]),
    offset=st.integers(0, 2**62),
    mtime=st.integers(-(2**63), 2**63 - 1),
    size=st.integers(0, 2**63 - 1),
    device=st.one_of(st.none(), st.tuples(st.integers(0, 255), st.integers(0, 255))),
)
REFS = st.builds(
    ChunkRef, st.text("0123456789abcdef", min_size=64, max_size=64), st.integers(1, LARGEST_CHUNK), st.integers(0, 1),
    st.integers(0, 2**50), st.integers(1, 2**40),
)  # fmt: skip


def file_list(members: list[Member], *, at_once: bool = True) -> bytes:
    stored = io.BytesIO()
    writer = FileListWriter(stored.write)
    if at_once:
        writer.extend(members)
    else:
        for member in members:
            writer.add(member)
    writer.close()
    return stored.getvalue()


def index(refs: list[ChunkRef]) -> bytes:
    stored = io.BytesIO()
    writer = IndexWriter(stored.write, ["archives/a/1.tar.zst", "archives/a/0.tar.zst"])
    for ref in refs:
        writer.add(ref)
    writer.close()
    return stored.getvalue()


def in_pieces(stored: bytes, size: int) -> Iterator[bytes]:
    return (stored[start : start + size] for start in range(0, len(stored), size))


def read_index(stored: bytes, size: int = 1 << 20) -> list[ChunkRef]:
    return list(Index(in_pieces(stored, size), "it"))


def read_files(stored: bytes, size: int = 1 << 20) -> list[Member]:
    return list(read_file_list(in_pieces(stored, size), "it"))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(MEMBERS, max_size=20), st.integers(1, 200), st.booleans())
def test_file_lists_round_trip(members: list[Member], size: int, at_once: bool) -> None:
    assert read_files(file_list(members, at_once=at_once), size) == members


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(REFS, max_size=20), st.integers(1, 200))
def test_indexes_round_trip(refs: list[ChunkRef], size: int) -> None:
    assert read_index(index(refs), size) == refs


def test_many_lines() -> None:
    members = [Member(path=f"d/{number}", kind="file", offset=number * 1024) for number in range(20_000)]
    assert read_files(file_list(members), 10_000) == members
    assert file_list(members) == file_list(members)


FILES = file_list([Member(path=f"file {number}", kind="file", offset=number * 512) for number in range(50)])
CHUNKS = index([ChunkRef("ab" * 32, number + 1, 0, number, 5) for number in range(50)])


@pytest.mark.parametrize(("stored", "read"), [(FILES, read_files), (CHUNKS, read_index)])
def test_truncated_or_extended(stored: bytes, read: Callable[[bytes], list[object]]) -> None:
    for damaged in (*(stored[:end] for end in range(len(stored))), stored + b"x", stored + stored, stored[1:]):
        with pytest.raises(IntegrityError):
            read(damaged)


@pytest.mark.parametrize(("stored", "read"), [(FILES, read_files), (CHUNKS, read_index)])
@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.integers(0, 5000), st.binary(min_size=1, max_size=4))
def test_overwritten(stored: bytes, read: Callable[[bytes], list[object]], place: int, value: bytes) -> None:
    damaged = bytearray(stored)
    start = place % len(stored)
    damaged[start : start + len(value)] = value
    with contextlib.suppress(IntegrityError):
        assert read(bytes(damaged)) == read(stored)


@pytest.mark.parametrize(("stored", "read"), [(FILES, read_files), (CHUNKS, read_index)])
@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.integers(0, 5000), st.binary(min_size=1, max_size=4))
def test_wrong_lines_with_a_right_checksum(
    stored: bytes, read: Callable[[bytes], list[object]], place: int, value: bytes
) -> None:
    """No other exception than IntegrityError, whatever is written."""
    lines = bytearray(zstandard.ZstdDecompressor().decompressobj().decompress(stored))
    start = place % len(lines)
    lines[start : start + len(value)] = value
    with contextlib.suppress(IntegrityError):
        read(zstandard.ZstdCompressor(write_checksum=True).compress(bytes(lines)))


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[]",
        b"{}",
        b"nonsense",
        b"\xff",
        b'{"path":"\\ud800","kind":"file","offset":0}',
    ],
)
def test_lines_that_are_nothing(line: bytes) -> None:
    for stored, read in ((FILES, read_files), (CHUNKS, read_index)):
        header = zstandard.ZstdDecompressor().decompressobj().decompress(stored).split(b"\n")[0]
        for lines in (line + b"\n", header + b"\n" + line + b"\n"):
            with pytest.raises(IntegrityError):
                read(zstandard.ZstdCompressor().compress(lines))


def test_a_line_that_nests_deeply() -> None:
    header = zstandard.ZstdDecompressor().decompressobj().decompress(FILES).split(b"\n")[0]
    with pytest.raises(IntegrityError):
        read_files(zstandard.ZstdCompressor().compress(header + b"\n" + b'{"a":' * 100_000 + b"\n"))


def test_the_wrong_kind_of_object() -> None:
    with pytest.raises(IntegrityError):
        read_files(CHUNKS)
    with pytest.raises(IntegrityError):
        read_index(FILES)


@pytest.mark.parametrize("filler", [b"\0", b"\n"])
def test_a_bomb(filler: bytes) -> None:
    """A quarter of a gibibyte that compresses to some KiB is neither held in memory nor split into lines at once."""
    compressor = zstandard.ZstdCompressor(19).compressobj()
    bomb = b"".join(compressor.compress(filler * MIB) for _ in range(256)) + compressor.flush()
    tracemalloc.start()
    try:
        lines = read_lines([bomb], "it")
        if filler == b"\0":
            with pytest.raises(IntegrityError, match="longer than any real one"):
                next(lines)
        else:
            assert [next(lines) for _ in range(300_000)] == [b""] * 300_000
        assert tracemalloc.get_traced_memory()[1] < 120 * MIB
    finally:
        tracemalloc.stop()


def test_a_long_line_in_small_steps_takes_linear_time() -> None:
    stored = io.BytesIO()
    writer = LineWriter(stored.write)
    line = bytes(32 + number * number % 89 for number in range(1 << 16)) * 64
    writer.write(line)
    writer.close()
    assert list(read_lines(in_pieces(stored.getvalue(), 16), "it")) == [line]


def test_a_window_that_no_program_takes_by_default() -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(19, window_log=27)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    stored = compressor.compress(b"{}\n") + compressor.flush()
    with pytest.raises(IntegrityError):
        list(read_lines([stored], "it"))
