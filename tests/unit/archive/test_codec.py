"""Frames: whole, damaged, and as other programs see them."""

from __future__ import annotations

import contextlib
import gzip
import subprocess
from itertools import islice
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backupd.archive import Codec, codec_for, codec_of
from backupd.errors import IntegrityError
from backupd.model import Compression
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
