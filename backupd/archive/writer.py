"""Turns a tar stream into stored frames, an index and a file list, on all processors and in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import NamedTuple

from blake3 import blake3
from msgspec import Struct

from backupd.archive.blocks import Blocks, Piece, ReadInto
from backupd.archive.chunker import Chunker, ChunkerParameters
from backupd.archive.codec import Codec
from backupd.archive.filelist import FileListWriter
from backupd.archive.forecast import ChunkOrder, Forecast
from backupd.archive.index import ChunkRef, IndexWriter
from backupd.archive.lines import Sink
from backupd.archive.tarwalk import TarWalker

_BLOCK_CHUNKS = 2


class Location(NamedTuple):
    """Where a chunk is stored already: number of the data object in the new index, offset and size in it."""

    archive: int
    offset: int
    stored_size: int


class ArchiveSummary(Struct, frozen=True):
    """What one tar stream came to. Plain sizes are bytes of the tar stream, stored ones bytes in the data object.

    Two streams that were cut by the same parameters are the same if their `digest` is.
    """

    plain_size: int
    new_plain_size: int
    stored_size: int
    chunk_count: int
    member_count: int
    archives_used: frozenset[int]
    features: frozenset[str]
    digest: str


class ArchiveSinks(Struct, frozen=True):
    """Where the three objects of an archive go, as append-only byte sinks. `data` gets nothing if nothing is new."""

    data: Sink
    index: IndexWriter
    files: FileListWriter


class _Packed(NamedTuple):
    digest: str
    frame: bytes | memoryview | None


class ArchiveWriter:
    """Chunks, hashes and compresses one stream. Used once.

    `known` says where chunks are that need not be stored again; with `known` None the archive is full: every chunk is
    stored in stream order, repeated ones too, so that its data object is an ordinary compressed tar.

    `like` is the order of an earlier stream's chunks: where those that come again end need not be searched for.

    `stored` says where the new chunks are, in the data object of number 0, and `order` how all of them follow.

    Memory: at most `window_size` plain bytes in flight, in blocks that are half as large again, two more such blocks,
    and frames: about four times `window_size` at worst; and 300 bytes a new chunk, 130 another one.
    """

    def __init__(
        self,
        *,
        chunker: ChunkerParameters,
        codec: Codec,
        sinks: ArchiveSinks,
        known: Mapping[str, Location] | None,
        threads: int,
        like: ChunkOrder | None = None,
    ) -> None:
        self._chunker = Chunker(chunker)
        self._window_size = (threads + 2) * chunker.maximum
        self._codec = codec
        self._sinks = sinks
        self._full = known is None
        self._known = known or {}
        block_size = _BLOCK_CHUNKS * chunker.maximum
        count = self._window_size // block_size + 2  # one is read, one cut
        self._blocks = Blocks(head=chunker.maximum, size=block_size, count=count)
        self._cutting, self._packing, self._storing = (
            ThreadPoolExecutor(workers, thread_name_prefix=name)
            for name, workers in (("cut", 1), ("pack", threads), ("store", 1))
        )
        self._forecast = Forecast(like) if like else None
        self.order = ChunkOrder()
        self.stored: dict[str, Location] = {}
        self._digest = blake3()
        self._used: set[int] = set()
        self._plain_size = self._new_plain_size = self._stored_size = self._chunk_count = 0

    def pack(self, readinto: ReadInto, advanced: Callable[[int], None]) -> ArchiveSummary:
        """Read the stream to its end. `advanced` is told of plain bytes done. Errors of the sinks pass through.

        The caller's thread only reads, so that who writes the stream seldom has to wait; another one cuts and follows
        the members, `threads` hash and compress, and one stores.
        """
        pieces: SimpleQueue[Piece | None] = SimpleQueue()
        walker = TarWalker()
        try:
            cutting = self._cutting.submit(self._cut, iter(pieces.get, None), walker, advanced)
            for piece in self._blocks.read(readinto):
                pieces.put(piece)
                if cutting.done():  # it has failed, and says how
                    break
            pieces.put(None)
            cutting.result()
        finally:
            pieces.put(None)
            for pool in (self._packing, self._cutting, self._storing):  # without the first, the second gives up
                pool.shutdown(cancel_futures=True)
        walker.finish()
        return ArchiveSummary(
            plain_size=self._plain_size,
            new_plain_size=self._new_plain_size,
            stored_size=self._stored_size,
            chunk_count=self._chunk_count,
            member_count=walker.members,
            archives_used=frozenset(self._used),
            features=frozenset(walker.features),
            digest=self._digest.hexdigest(),
        )

    def _cut(self, pieces: Iterator[Piece], walker: TarWalker, advanced: Callable[[int], None]) -> None:
        in_flight: deque[tuple[int, Future[None]]] = deque()
        waiting = 0

        def done_with(block: memoryview) -> None:
            self._storing.submit(self._blocks.give_back, block)  # once its last chunk is stored, that is

        try:
            for chunk, digest in self._chunker.cut(pieces, done_with, self._forecast):
                size = len(chunk)
                packed = self._packing.submit(self._pack_one, chunk, digest)
                in_flight.append((size, self._storing.submit(self._store, size, packed)))
                waiting += size
                if members := walker.feed(chunk):
                    self._sinks.files.extend(members)
                while in_flight and (waiting > self._window_size or in_flight[0][1].done()):
                    size, stored = in_flight.popleft()
                    stored.result()
                    waiting -= size
                    advanced(size)
            for size, stored in in_flight:
                stored.result()
                advanced(size)
        finally:
            self._blocks.no_more()

    def _pack_one(self, chunk: memoryview, digest: str | None) -> _Packed:
        digest = digest or blake3(chunk).hexdigest()
        return _Packed(digest, None if digest in self._known else self._codec.compress(chunk))

    def _store(self, size: int, packing: Future[_Packed]) -> None:
        packed = packing.result()
        location = None if self._full else self._known.get(packed.digest) or self.stored.get(packed.digest)
        if location is None:
            frame = packed.frame
            assert frame is not None  # _pack_one leaves out only what is known
            location = Location(0, self._stored_size, len(frame))
            self._sinks.data(frame)
            self.stored[packed.digest] = location
            self._stored_size += len(frame)
            self._new_plain_size += size
        self._used.add(location.archive)
        self._digest.update(packed.digest.encode())
        self.order.append(packed.digest, size)
        self._plain_size += size
        self._chunk_count += 1
        self._sinks.index.add(ChunkRef(packed.digest, size, location.archive, location.offset, location.stored_size))
