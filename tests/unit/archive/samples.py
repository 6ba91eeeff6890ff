"""Streams and archives for the tests of this folder, in chunks small enough to have many."""

from __future__ import annotations

import io
import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from backupd.archive import (
    ArchiveReader,
    ArchiveSinks,
    ArchiveSummary,
    ArchiveWriter,
    Chunker,
    ChunkerParameters,
    ChunkOrder,
    ChunkRef,
    Codec,
    FileListWriter,
    Index,
    IndexWriter,
    Location,
    Member,
    codec_of,
    read_file_list,
)
from backupd.archive.blocks import Blocks, ReadInto
from backupd.archive.forecast import Forecast
from backupd.model import KIB
from tests.support.tars import END, header, padded

SMALL = ChunkerParameters(minimum=4 * KIB, average=16 * KIB, maximum=32 * KIB)


def noise(size: int, seed: int = 0) -> bytes:
    """Half as large when compressed, and the same every time."""
    return random.Random(seed).randbytes(size // 2).hex().encode()[:size]


def tar_of_noise(size: int, count: int = 10, seed: int = 0) -> bytes:
    members = (header(b"./%d" % n, size=size) + padded(noise(size, seed + n)) for n in range(count))
    return b"".join(members) + END


def cut(parameters: ChunkerParameters, readinto: ReadInto, forecast: Forecast | None = None) -> Iterator[memoryview]:
    """The chunks of a stream, each good until the next one is asked for."""
    blocks = Blocks(parameters.maximum, 2 * parameters.maximum, count=2)
    chunks = Chunker(parameters).cut(blocks.read(readinto), blocks.give_back, forecast)
    return (chunk.data for chunk in chunks)


def reading(stream: bytes, pieces: Iterable[int] = ()) -> ReadInto:
    """A `readinto` that fills as much as it can, or `pieces` one after the other and then the rest."""
    source = io.BytesIO(stream)
    sizes = iter(pieces)

    def readinto(buffer: memoryview) -> int:
        return source.readinto(buffer[: next(sizes, len(buffer))])

    return readinto


@dataclass(frozen=True)
class Sample:
    """An archive in memory."""

    data: bytes
    index: bytes
    files: bytes
    summary: ArchiveSummary
    order: ChunkOrder = field(compare=False)

    @property
    def refs(self) -> list[ChunkRef]:
        return list(Index([self.index], "sample"))

    @property
    def members(self) -> list[Member]:
        return list(read_file_list([self.files], "sample"))

    @property
    def locations(self) -> dict[str, Location]:
        return {ref.digest: Location(1, ref.offset, ref.stored_size) for ref in self.refs}


def packed(
    stream: bytes,
    codec: Codec | None = None,
    known: Mapping[str, Location] | None = None,
    chunker: ChunkerParameters = SMALL,
    like: ChunkOrder | None = None,
) -> Sample:
    data, index, files = io.BytesIO(), io.BytesIO(), io.BytesIO()
    sinks = ArchiveSinks(data.write, IndexWriter(index.write, ["own", "parent"]), FileListWriter(files.write))
    codec = codec or codec_of(".tar.zst")
    writer = ArchiveWriter(chunker=chunker, codec=codec, sinks=sinks, known=known, threads=2, like=like)
    summary = writer.pack(reading(stream), lambda _: None)
    sinks.index.close()
    sinks.files.close()
    return Sample(data.getvalue(), index.getvalue(), files.getvalue(), summary, writer.order)


def unpacked(objects: list[bytes], refs: Iterable[ChunkRef], codec: Codec | None = None) -> bytes:
    def fetch(archive: int, offset: int, size: int) -> bytes:
        return objects[archive][offset : offset + size]

    reader = ArchiveReader(fetch, lambda _: codec or codec_of(".tar.zst"), name="sample", threads=2)
    return b"".join(reader.chunks(refs))
