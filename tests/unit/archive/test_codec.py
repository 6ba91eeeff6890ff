"""Frames: whole, damaged, and as other programs see them."""

from __future__ import annotations

import contextlib
import gzip
import subprocess
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from random import Random

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from backupd.archive import Codec, codec_for, codec_of
from backupd.errors import IntegrityError
from backupd.model import Compression
from tests.support.tars import GNU, USTAR, header, padded, record
from tests.unit.archive.samples import noise

CODECS = [
    codec_for(compression)
    for compression in (Compression("zstd"), Compression("zstd", 1), Compression("gzip"), Compression("none"))
]
CHUNKS = [b"\0" * 3_000_000, noise(100_000), b"x", noise(50_000, 1)]


def frames(codec: Codec) -> list[bytes]:
    return [bytes(codec.compress(memoryview(chunk))) for chunk in CHUNKS]


@pytest.mark.parametrize("codec", CODECS)
def test_round_trips(codec: Codec) -> None:
    for chunk, frame in zip(CHUNKS, frames(codec), strict=True):
        assert codec.decompress(memoryview(frame), len(chunk)) == chunk


@pytest.mark.parametrize("codec", CODECS)
def test_other_sizes_than_the_chunks_own(codec: Codec) -> None:
    for chunk, frame in zip(CHUNKS, frames(codec), strict=True):
        for size in (0, 1, len(chunk) - 1, len(chunk) + 1, 2**40):
            if size != len(chunk):
                with pytest.raises(IntegrityError):
                    codec.decompress(memoryview(frame), size)


@pytest.mark.parametrize("codec", CODECS)
def test_truncated_frames_and_frames_with_something_behind_them(codec: Codec) -> None:
    frame = bytes(codec.compress(memoryview(noise(1000))))
    for wrong in (*(frame[:end] for end in range(len(frame))), frame + b"x", frame + frame, frame[1:]):
        with pytest.raises(IntegrityError):
            codec.decompress(memoryview(wrong), 1000)


@pytest.mark.parametrize("codec", CODECS[:3])
@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 10_000), st.integers(1, 255))
def test_flipped_bits_in_a_frame_that_has_a_checksum(codec: Codec, place: int, mask: int) -> None:
    """What passes is the chunk itself: a gzip header holds bytes that mean nothing."""
    frame = bytearray(codec.compress(memoryview(noise(5000))))
    frame[place % len(frame)] ^= mask
    with contextlib.suppress(IntegrityError):
        assert codec.decompress(memoryview(frame), 5000) == noise(5000)


@pytest.mark.parametrize(("codec", "program"), [(CODECS[0], "zstd"), (CODECS[1], "zstd"), (CODECS[2], "gzip")])
def test_concatenated_frames_are_one_stream_to_the_program(codec: Codec, program: str) -> None:
    stream = b"".join(frames(codec))
    done = subprocess.run([program, "-dc"], input=stream, stdout=subprocess.PIPE, check=True)
    assert done.stdout == b"".join(CHUNKS)


def test_gzip_members_are_the_same_every_time_and_readable_by_python() -> None:
    assert gzip.decompress(b"".join(frames(CODECS[2]))) == b"".join(CHUNKS)
    assert frames(CODECS[2]) == frames(CODECS[2])


@pytest.mark.parametrize("codec", CODECS)
def test_the_name_of_an_archive_tells_its_codec(codec: Codec) -> None:
    assert codec_of(f"archives/x/1{codec.suffix}").suffix == codec.suffix


def test_other_names_have_no_codec() -> None:
    with pytest.raises(IntegrityError, match=r"x\.zip"):
        codec_of("x.zip")


def rows(size: int) -> bytes:
    """Lines of one pattern with something random in each, as in a log."""
    random = Random(4)
    line = '{{"level":"INFO","request":"{:016x}","path":"/api/trips/{}","status":200,"user":{}}}\n'
    lines = (line.format(random.getrandbits(64), random.getrandbits(14), random.getrandbits(12)) for _ in range(size))
    return "".join(islice(lines, size // 80)).encode()[:size]


def prose(size: int) -> bytes:
    """Words that come back long after they were last seen."""
    random = Random(5)
    words = ["".join(random.choices("aeioulnrstm", k=random.randint(2, 9))) for _ in range(20_000)]
    return " ".join(random.choices(words, [1 / rank for rank in range(1, 20_001)], k=size // 5)).encode()[:size]


def test_rows_become_smaller_than_at_the_level_that_is_best_for_prose() -> None:
    """By what a table that knows only the newest entries gains on rows and loses on prose; see decision 80."""
    tuned, level_3 = codec_for(Compression("zstd", None)), codec_for(Compression("zstd", 3))

    def gain(text: bytes) -> float:
        return len(tuned.compress(memoryview(text))) / len(level_3.compress(memoryview(text)))

    assert gain(rows(1_000_000)) < 0.96
    assert gain(prose(1_000_000)) < 1.01


def test_what_is_no_longer_rows_is_noticed() -> None:
    codec, prose_frame = codec_for(Compression("zstd", None)), codec_for(Compression("zstd", None))
    expected = prose_frame.compress(memoryview(prose(1_000_000)))
    for _ in range(3):
        codec.compress(memoryview(rows(1_000_000)))
    assert codec.compress(memoryview(prose(1_000_000))) == expected


TUNED = Compression("zstd", None)


def tar_of(sizes: Iterable[int], magic: bytes = USTAR, *, pax: bool = True) -> bytes:
    """Members with nothing but noise in them, each behind a pax header with its time, unless told otherwise."""
    stream = bytearray()
    for number, size in enumerate(sizes):
        if pax:
            time = record(b"mtime", b"1700000000.%09d" % (number * 7919))
            stream += header(b"./PaxHeaders/%d" % number, b"x", len(time)) + padded(time)
        stream += header(b"./cache/%d" % number, size=size, magic=magic) + padded(noise(size, number))
    return bytes(stream)


def framed(chunk: bytes, strategy: int, min_match: int, hash_log: int, chain_log: int) -> bytes:
    parameters = zstandard.ZstdCompressionParameters(
        window_log=22,
        chain_log=chain_log,
        hash_log=hash_log,
        search_log=1,
        min_match=min_match,
        strategy=strategy,
        write_checksum=True,
        write_content_size=True,
    )
    return zstandard.ZstdCompressor(compression_params=parameters).compress(chunk)


def as_small_files(chunk: bytes) -> bytes:
    return framed(chunk, zstandard.STRATEGY_FAST, 6, 18, 18)


def as_other(chunk: bytes) -> bytes:
    return framed(chunk, zstandard.STRATEGY_DFAST, 5, 18, 17)


SMALL_FILES = tar_of([2048, 100, 1500, 3000] * 250)
SMALLER_FILES = tar_of([10] * 500)
LARGER_FILES = tar_of([8000] * 120)


@pytest.mark.parametrize("start", [0, 1, 255, 257, 258, 511])
def test_small_files_get_one_table_wherever_in_a_block_a_chunk_begins(start: int) -> None:
    chunk = SMALL_FILES[start : start - 600]
    frame = codec_for(TUNED).compress(memoryview(chunk))
    assert frame == as_small_files(chunk) != as_other(chunk)
    assert codec_for(TUNED).decompress(memoryview(frame), len(chunk)) == chunk


@pytest.mark.parametrize(
    "chunk",
    [
        tar_of([600] * 1000, GNU, pax=False),
        LARGER_FILES + SMALL_FILES * 2 + LARGER_FILES,
        tar_of([10] * 3),
    ],
    ids=["without pax headers", "in the middle", "few"],
)
def test_small_files_of_other_kinds(chunk: bytes) -> None:
    assert codec_for(TUNED).compress(memoryview(chunk)) == as_small_files(chunk) != as_other(chunk)


@pytest.mark.parametrize(
    "chunk",
    [
        LARGER_FILES,
        tar_of([3600] * 300),
        tar_of([4000, 0, 5000] * 40) + bytes(60_000) + Random(1).randbytes(500_000),
        SMALLER_FILES + Random(1).randbytes(1_100_000) + SMALLER_FILES,
        prose(5000) + bytes(1) + prose(5000) + b"ustar" + bytes(400),
        prose(5000) + bytes(1) + prose(5000) + b"usta",
        prose(100_000).replace(b" ", b"\0ustar\0"),
    ],
    ids=["8 KiB", "4 KiB", "before a large file", "around a large file", "less than a block", "cut off", "elsewhere"],
)
def test_what_stands_beside_small_files_is_compressed_as_before(chunk: bytes) -> None:
    assert codec_for(TUNED).compress(memoryview(chunk)) == as_other(chunk) != as_small_files(chunk)


def test_threads_share_a_codec() -> None:
    """Rows are left out: their frames depend on what a thread compressed before."""
    codec = codec_for(TUNED)
    chunks = [SMALL_FILES, LARGER_FILES, prose(1_000_000), tar_of([700] * 900)] * 8
    alone = [codec_for(TUNED).compress(memoryview(chunk)) for chunk in chunks]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(codec.compress, map(memoryview, chunks))) == alone
