"""Every byte that a reader passes on is one that was stored, and `select` picks no chunk too few or too many."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from backupd.archive import ArchiveReader, ChunkerParameters, ChunkRef, Codec, codec_of, select
from backupd.errors import IntegrityError, StoreUnavailable
from backupd.model import MIB
from tests.support.tars import END, header, padded
from tests.unit.archive.samples import noise, packed, tar_of_noise, unpacked

STREAM = tar_of_noise(70_000)
SAMPLE = packed(STREAM)
ZSTD, GZIP, PLAIN = (codec_of(f".tar{suffix}") for suffix in (".zst", ".gz", ""))

TINY = ChunkerParameters(minimum=256, average=512, maximum=1024)
TINY_STREAM = header(size=2000) + padded(noise(2000)) + END


@pytest.mark.parametrize("codec", [ZSTD, GZIP, PLAIN])
def test_every_flipped_byte_is_noticed(codec: Codec) -> None:
    """Or means nothing: a gzip member holds a time and the name of a system, which nobody reads."""
    sample = packed(TINY_STREAM, codec, chunker=TINY)
    assert len(sample.refs) > 3
    refs = sample.refs
    for place in range(len(sample.data)):
        damaged = bytearray(sample.data)
        damaged[place] ^= 0x55
        try:
            assert unpacked([bytes(damaged)], refs, codec) == TINY_STREAM
            assert codec is GZIP
        except IntegrityError:
            pass


@pytest.mark.parametrize("end", [0, 1, len(SAMPLE.data) // 2, len(SAMPLE.data) - 1])
def test_a_truncated_object(end: int) -> None:
    with pytest.raises(IntegrityError):
        unpacked([SAMPLE.data[:end]], SAMPLE.refs)


def test_swapped_frames() -> None:
    first, second, *_ = SAMPLE.refs
    swapped = [first._replace(offset=second.offset, stored_size=second.stored_size), second]
    with pytest.raises(IntegrityError):
        unpacked([SAMPLE.data], swapped)
    one, other = bytes(1000), b"1" * 1000
    refs = [ChunkRef(blake3(chunk).hexdigest(), 1000, 0, start, 1000) for chunk, start in ((one, 0), (other, 1000))]
    assert unpacked([one + other], refs, PLAIN) == one + other
    with pytest.raises(IntegrityError, match="not what was stored"):
        unpacked([other + one], refs, PLAIN)


@pytest.mark.parametrize(
    "change", [{"plain_size": 5}, {"plain_size": 2**40}, {"stored_size": 5}, {"offset": 2**40}, {"digest": "0" * 64}]
)
def test_an_index_that_lies(change: dict[str, Any]) -> None:
    refs = SAMPLE.refs
    refs[3] = refs[3]._replace(**change)
    with pytest.raises(IntegrityError):
        unpacked([SAMPLE.data], refs)


def test_nothing_behind_the_damage_is_passed_on() -> None:
    damaged = bytearray(SAMPLE.data)
    damaged[SAMPLE.refs[4].offset + 20] ^= 1
    reader = ArchiveReader(
        lambda _, offset, size: bytes(damaged[offset : offset + size]), lambda _: ZSTD, name="x", threads=2
    )
    passed = b""
    chunks = reader.chunks(SAMPLE.refs)
    with pytest.raises(IntegrityError, match="x: "):  # noqa: PT012
        while True:
            passed += next(chunks)
    assert STREAM.startswith(passed)
    assert len(passed) <= sum(ref.plain_size for ref in SAMPLE.refs[:4])


def test_a_store_that_fails() -> None:
    def fetch(archive: int, offset: int, size: int) -> bytes:
        raise StoreUnavailable("gone")

    with pytest.raises(StoreUnavailable):
        list(ArchiveReader(fetch, lambda _: ZSTD, name="x", threads=2).chunks(SAMPLE.refs))


def test_adjacent_frames_are_fetched_together_and_bounded() -> None:
    fetched: list[tuple[int, int]] = []
    lock = threading.Lock()

    def fetch(archive: int, offset: int, size: int) -> bytes:
        with lock:
            fetched.append((offset, size))
        return bytes(size)

    refs = [ChunkRef("0" * 64, MIB, 0, number * MIB, MIB) for number in range(40)]
    with pytest.raises(IntegrityError):
        list(ArchiveReader(fetch, lambda _: PLAIN, name="x", threads=2).chunks(refs))
    assert all(size == 4 * MIB for _, size in fetched)
    assert len(fetched) <= 5


def test_no_more_is_fetched_ahead_than_promised_and_no_thread_is_left() -> None:
    fetched = threading.Semaphore(0)
    count = 0

    def fetch(archive: int, offset: int, size: int) -> bytes:
        nonlocal count
        count += 1
        fetched.release()
        return SAMPLE.data[offset : offset + size]

    apart = [ref for number, ref in enumerate(SAMPLE.refs) if number % 2]
    chunks = ArchiveReader(fetch, lambda _: ZSTD, name="x", threads=2).chunks(apart)
    next(chunks)
    for _ in range(4):
        assert fetched.acquire(timeout=10)
    assert count <= 4
    chunks.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("unpack")]


@st.composite
def ranges(draw: st.DrawFn) -> list[tuple[int, int]]:
    edges = sorted(draw(st.sets(st.integers(0, 400), max_size=12)))
    return list(zip(edges[::2], edges[1::2], strict=False))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 40), max_size=15), ranges())
def test_select_is_brute_force(sizes: list[int], wanted: list[tuple[int, int]]) -> None:
    refs = [ChunkRef(str(number), size, 0, 0, 1) for number, size in enumerate(sizes)]
    starts = [sum(sizes[:number]) for number in range(len(sizes))]
    expected = [
        (start, ref)
        for start, ref in zip(starts, refs, strict=True)
        if any(begin < start + ref.plain_size and start < end for begin, end in wanted)
    ]
    assert list(select(refs, wanted)) == expected


def test_select_takes_empty_and_adjacent_ranges() -> None:
    refs = [ChunkRef(str(number), 10, 0, 0, 1) for number in range(5)]
    assert [start for start, _ in select(refs, [(0, 0), (5, 5), (12, 15), (15, 18), (25, 40)])] == [10, 20, 30]
    assert list(select(refs, [])) == []
    assert list(select(refs, [(0, 0)])) == []
