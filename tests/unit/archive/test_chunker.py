"""What every stream's chunks have in common."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backupd.archive import ChunkerParameters
from tests.unit.archive.samples import SMALL, cut, noise, reading

STREAM = noise(1_500_000)


def chunks_of(stream: bytes, pieces: list[int] | None = None, parameters: ChunkerParameters = SMALL) -> list[bytes]:
    return [bytes(chunk) for chunk in cut(parameters, reading(stream, pieces or []))]


WHOLE = chunks_of(STREAM)


def test_the_sizes_are_within_bounds() -> None:
    assert b"".join(WHOLE) == STREAM
    assert all(SMALL.minimum <= len(chunk) <= SMALL.maximum for chunk in WHOLE[:-1])
    assert 0 < len(WHOLE[-1]) <= SMALL.maximum
    assert SMALL.average / 2 < len(STREAM) / len(WHOLE) < SMALL.average * 2


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 200_000), max_size=60))
def test_how_the_stream_arrives_makes_no_difference(pieces: list[int]) -> None:
    assert chunks_of(STREAM, pieces) == WHOLE


def test_a_stream_that_arrives_byte_by_byte() -> None:
    stream = STREAM[:200_000]
    assert chunks_of(stream, [1] * len(stream)) == chunks_of(stream)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, len(STREAM)), st.binary(min_size=1, max_size=5000))
def test_an_insertion_changes_only_chunks_near_it(place: int, inserted: bytes) -> None:
    changed = chunks_of(STREAM[:place] + inserted + STREAM[place:])
    assert b"".join(changed) == STREAM[:place] + inserted + STREAM[place:]
    assert len(set(changed) - set(WHOLE)) <= 12


@pytest.mark.parametrize("size", [0, 1, SMALL.minimum, SMALL.maximum, 4 * SMALL.maximum, 4 * SMALL.maximum + 1])
@pytest.mark.parametrize("filler", [bytes, noise])
def test_edges(size: int, filler: type[bytes]) -> None:
    chunks = chunks_of(filler(size))
    assert b"".join(chunks) == filler(size)
    assert all(chunks)


def test_a_stream_that_fails_passes_its_error_on() -> None:
    def broken(buffer: memoryview) -> int:
        raise OSError("broken pipe")

    with pytest.raises(OSError, match="broken pipe"):
        list(cut(SMALL, broken))


def test_no_more_is_waited_for_than_a_chunk_needs() -> None:
    """The first chunk is there before the second's bytes are asked for, but for an eighth of a block."""
    asked = 0

    def readinto(buffer: memoryview) -> int:
        nonlocal asked
        asked += 1000
        return len(buffer[:1000])

    next(cut(SMALL, readinto))
    assert asked <= SMALL.maximum * 5 // 4 + 1000
