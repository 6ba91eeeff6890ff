"""Chunks that come as in an earlier stream stay as they were cut, and no others are cut otherwise."""

from __future__ import annotations

from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from backupd.archive import Chunker, ChunkOrder, codec_of
from backupd.archive.blocks import Blocks
from backupd.archive.forecast import Forecast
from tests.unit.archive.samples import SMALL, cut, noise, packed, reading, tar_of_noise

STREAM = noise(1_500_000)
ZEROS = bytes(600_000)
PLAIN = codec_of(".tar")


def order_of(stream: bytes) -> ChunkOrder:
    order = ChunkOrder()
    for chunk in cut(SMALL, reading(stream)):
        order.append(blake3(chunk).hexdigest(), len(chunk))
    return order


def chunks(stream: bytes, order: ChunkOrder | None) -> list[bytes]:
    return [bytes(chunk) for chunk in cut(SMALL, reading(stream), Forecast(order) if order else None)]


def looks_for_an_end(stream: bytes, order: ChunkOrder) -> int:
    """How often an end has to be looked for, and whether digests are right."""
    blocks = Blocks(SMALL.maximum, 2 * SMALL.maximum, count=2)
    chunker = Chunker(SMALL)
    plain = chunker._cutter
    count = 0

    class Counted:
        def cut_buf(self, data: memoryview) -> object:
            nonlocal count
            count += 1
            return plain.cut_buf(data)

    chunker._cutter = Counted()  # type: ignore[assignment]
    for chunk in chunker.cut(blocks.read(reading(stream)), blocks.give_back, Forecast(order)):
        assert chunk.digest == blake3(chunk.data).hexdigest()
    return count


ORDER = order_of(STREAM)
EDITS = st.lists(
    st.tuples(st.integers(0, len(STREAM)), st.integers(0, 80_000), st.binary(max_size=3000)), min_size=1, max_size=4
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(EDITS, st.integers(0, len(STREAM)))
def test_only_chunks_that_come_again_are_not_searched_for(edits: list[tuple[int, int, bytes]], end: int) -> None:
    changed = STREAM
    for place, removed, inserted in edits:
        changed = changed[:place] + inserted + changed[place + removed :]
    for stream in (changed, changed[:end], ZEROS + changed, changed + ZEROS):
        check(stream)


def test_what_is_just_behind_a_chunk() -> None:
    """It is what a search looks at, too: there the earlier stream's chunk stands."""
    end = differing = 0
    for size in list(ORDER.sizes)[:-1]:
        end += size
        flipped = STREAM[:end] + bytes([STREAM[end] ^ 1]) + STREAM[end + 1 :]
        for stream in (flipped, STREAM[:end], STREAM[: end + 1], STREAM[: end + 2]):
            differing += check(stream)
    assert differing


def check(stream: bytes) -> bool:
    """Whether it was cut otherwise than by searching."""
    cut_so = chunks(stream, ORDER)
    searched = chunks(stream, None)
    assert b"".join(cut_so) == stream
    assert all(SMALL.minimum <= len(chunk) <= SMALL.maximum for chunk in cut_so[:-1])
    own = {blake3(chunk).hexdigest() for chunk in searched}
    if other := [chunk for chunk in cut_so if blake3(chunk).hexdigest() not in own]:
        # From a chunk of the earlier stream on, until both meet again.
        first = next(chunk for chunk in cut_so if blake3(chunk).hexdigest() not in own)
        assert blake3(first).hexdigest() in ORDER.digests
    return bool(other)


def test_a_stream_without_one_pattern_after_another() -> None:
    """Cut by size alone, over and over the same chunk."""
    for stream in (ZEROS, ZEROS[:-5], ZEROS + STREAM, STREAM + ZEROS):
        for order in (order_of(ZEROS), order_of(ZEROS + STREAM), ORDER):
            assert chunks(stream, order) == chunks(stream, None)


def test_what_has_not_changed_is_not_searched_for_ends() -> None:
    count = len(ORDER.digests)
    assert looks_for_an_end(STREAM, ORDER) == 1  # of the stream
    middle = len(STREAM) // 2
    assert looks_for_an_end(STREAM[:middle] + b"new" + STREAM[middle:], ORDER) < 12 < count / 5
    assert looks_for_an_end(STREAM[:middle] + STREAM[middle + 300_000 :], ORDER) < 12
    assert looks_for_an_end(noise(1_500_000, 99), ORDER) > count / 2


def test_a_forecast_that_lies_makes_no_difference() -> None:
    """Wrong sizes, sizes that no chunk has, digests of something else, nothing at all."""
    for size in (0, 1, SMALL.minimum, SMALL.maximum, 2**31):
        order = ChunkOrder()
        for digest in ORDER.digests:
            order.append(digest, size)
        assert chunks(STREAM, order) == chunks(STREAM, None)
    backwards = ChunkOrder()
    for digest, length in zip(reversed(ORDER.digests), reversed(ORDER.sizes), strict=True):
        backwards.append(digest, length)
    assert chunks(STREAM, backwards) == chunks(STREAM, None)
    assert chunks(STREAM, ChunkOrder()) == chunks(STREAM, None)


def test_an_archive_is_the_same_with_it() -> None:
    stream = tar_of_noise(70_000)
    parent = packed(stream, PLAIN)
    order = ChunkOrder()
    for ref in parent.refs:
        order.append(ref.digest, ref.plain_size)
    for changed in (stream, tar_of_noise(70_000, count=12), tar_of_noise(69_000)):
        with_it = packed(changed, PLAIN, known=parent.locations, like=order)
        assert list(zip(with_it.order.digests, with_it.order.sizes, strict=True)) == [ref[:2] for ref in with_it.refs]
        assert with_it == packed(changed, PLAIN, known=parent.locations)
