"""What an archive's three objects hold, and what happens when something fails on the way."""

from __future__ import annotations

import gzip
import io
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from backupd.archive import ArchiveSinks, ArchiveWriter, Codec, FileListWriter, IndexWriter, codec_of
from backupd.errors import IntegrityError
from tests.support.tars import END, header, padded, walk
from tests.unit.archive.samples import SMALL, noise, packed, reading, tar_of_noise, unpacked

STREAM = tar_of_noise(70_000)
ZSTD, GZIP, PLAIN = (codec_of(f".tar{suffix}") for suffix in (".zst", ".gz", ""))


@pytest.mark.parametrize("codec", [ZSTD, GZIP, PLAIN])
def test_a_full_archive_comes_back(codec: Codec) -> None:
    sample = packed(STREAM, codec)
    assert unpacked([sample.data], sample.refs, codec) == STREAM
    assert sample.members == walk(STREAM)[0]
    summary = sample.summary
    assert summary.plain_size == summary.new_plain_size == len(STREAM)
    assert (summary.stored_size, summary.chunk_count, summary.member_count) == (len(sample.data), len(sample.refs), 10)
    assert (summary.archives_used, summary.features) == (frozenset({0}), frozenset())


def test_a_full_archive_is_an_ordinary_compressed_tar() -> None:
    assert (
        subprocess.run(["zstd", "-dc"], input=packed(STREAM).data, stdout=subprocess.PIPE, check=True).stdout == STREAM
    )
    assert gzip.decompress(packed(STREAM, GZIP).data) == STREAM
    assert packed(STREAM, PLAIN).data == STREAM
    listed = subprocess.run(["tar", "-t", "--zstd"], input=packed(STREAM).data, stdout=subprocess.PIPE, check=True)
    assert listed.stdout.split() == [b"./%d" % number for number in range(10)]


def test_a_full_archive_holds_repeated_chunks_as_often_as_they_come() -> None:
    zeros = header(size=SMALL.maximum * 8) + bytes(SMALL.maximum * 8) + END
    sample = packed(zeros, PLAIN)
    assert sample.data == zeros
    assert len({ref.digest for ref in sample.refs}) < len(sample.refs)


def test_an_incremental_archive_holds_only_what_is_new() -> None:
    parent = packed(STREAM)
    changed = STREAM[: -len(END)] + header(b"./new", size=50_000) + padded(noise(50_000, 99)) + END
    child = packed(changed, known=parent.locations)
    assert unpacked([child.data, parent.data], child.refs) == changed
    assert child.summary.archives_used == {0, 1}
    assert 50_000 < child.summary.new_plain_size < 50_000 + 2 * SMALL.maximum
    assert len(child.data) == child.summary.stored_size < len(parent.data) / 5
    known = {ref.digest for ref in parent.refs}
    assert all((ref.archive == 1) == (ref.digest in known) for ref in child.refs)


def test_an_incremental_archive_of_the_same_is_empty() -> None:
    parent = packed(STREAM)
    child = packed(STREAM, known=parent.locations)
    assert (child.data, child.summary.new_plain_size, child.summary.archives_used) == (b"", 0, frozenset({1}))


def test_an_incremental_archive_holds_a_repeated_chunk_once() -> None:
    zeros = header(size=SMALL.maximum * 8) + bytes(SMALL.maximum * 8) + END
    sample = packed(zeros, PLAIN, known={})
    assert len(sample.data) < len(zeros) / 2
    assert unpacked([sample.data], sample.refs, PLAIN) == zeros


def test_archives_do_not_depend_on_timing() -> None:
    assert packed(STREAM).data == packed(STREAM).data
    assert packed(STREAM).index == packed(STREAM).index


@pytest.mark.parametrize("damaged", [b"no tar" * 1000, STREAM[:-1024], STREAM[:100_000], b"", STREAM[512:]])
def test_what_is_no_whole_tar_is_refused(damaged: bytes) -> None:
    with pytest.raises(IntegrityError):
        packed(damaged)


class Fault(Exception):  # noqa: N818
    """What goes wrong in these tests."""


@dataclass
class Failing:
    """Passes on what it is called with, a few times."""

    act: Callable[[Any], Any]
    left: int

    def __call__(self, argument: Any) -> Any:
        if self.left == 0:
            raise Fault
        self.left -= 1
        return self.act(argument)


@pytest.mark.parametrize("where", ["data", "index", "files", "advanced"])
def test_faults_behind_the_archive_pass_through(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = io.BytesIO().write
    index = IndexWriter(nothing, ["own"])
    files = FileListWriter(nothing)
    if where == "index":
        monkeypatch.setattr(index, "add", Failing(index.add, 3))
    if where == "files":
        monkeypatch.setattr(files, "extend", Failing(files.extend, 0))
    sinks = ArchiveSinks(Failing(nothing, 3) if where == "data" else nothing, index, files)
    writer = ArchiveWriter(chunker=SMALL, codec=ZSTD, sinks=sinks, known=None, threads=2)
    with pytest.raises(Fault):
        writer.pack(reading(STREAM), Failing(int, 3) if where == "advanced" else lambda _: None)
    no_threads_are_left()


def test_an_interrupt_at_any_moment_leaves_no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while the thread that cuts is started: it must hear that nothing comes."""
    sinks = ArchiveSinks(io.BytesIO().write, IndexWriter(io.BytesIO().write, []), FileListWriter(io.BytesIO().write))
    writer = ArchiveWriter(chunker=SMALL, codec=ZSTD, sinks=sinks, known=None, threads=2)
    submit = ThreadPoolExecutor.submit

    def interrupted(*arguments: Any) -> None:
        submit(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(ThreadPoolExecutor, "submit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        writer.pack(reading(STREAM), lambda _: None)
    no_threads_are_left()


def test_faults_of_the_stream_and_the_codec_pass_through() -> None:
    class Broken:
        suffix = ".tar"
        compress = staticmethod(Failing(PLAIN.compress, 2))
        decompress = staticmethod(PLAIN.decompress)

    cases: list[tuple[Codec, Callable[[memoryview], int]]] = [
        (ZSTD, Failing(reading(STREAM, [10_000] * 5), 4)),
        (Broken(), reading(STREAM)),
    ]
    for codec, stream in cases:
        sinks = ArchiveSinks(
            io.BytesIO().write, IndexWriter(io.BytesIO().write, []), FileListWriter(io.BytesIO().write)
        )
        writer = ArchiveWriter(chunker=SMALL, codec=codec, sinks=sinks, known=None, threads=2)
        with pytest.raises(Fault):
            writer.pack(stream, lambda _: None)
        no_threads_are_left()


def no_threads_are_left() -> None:
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith(("cut", "pack", "store"))]


def test_memory_stays_within_the_window() -> None:
    """A stream of any length is read into as many blocks as hold what is in flight, and two more."""
    content = noise(1_000_000) * 6
    stream = header(size=len(content)) + padded(content) + END
    source = reading(stream)
    blocks: dict[int, bytearray] = {}
    done = 0

    def readinto(buffer: memoryview) -> int:
        assert isinstance(buffer.obj, bytearray)
        blocks[id(buffer.obj)] = buffer.obj
        return source(buffer)

    def advanced(size: int) -> None:
        nonlocal done
        done += size

    sinks = ArchiveSinks(io.BytesIO().write, IndexWriter(io.BytesIO().write, []), FileListWriter(io.BytesIO().write))
    writer = ArchiveWriter(chunker=SMALL, codec=GZIP, sinks=sinks, known=None, threads=2)
    writer.pack(readinto, advanced)
    assert done == len(stream)
    assert sum(map(len, blocks.values())) <= 4 * 3 * SMALL.maximum
