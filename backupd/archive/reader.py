"""Turns stored frames back into the tar stream they came from, every chunk checked before a byte of it is passed on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from blake3 import blake3

from backupd.archive.codec import Codec
from backupd.archive.index import ChunkRef
from backupd.errors import BackupdError, IntegrityError, StoreError
from backupd.model import MIB

# Adjacent frames are fetched together up to this size: large enough that a request's latency does not count (S3), small
# enough to keep several in flight.
_FETCH_STORED = 4 * MIB
_FETCH_PLAIN = 8 * MIB

Fetch = Callable[[int, int, int], bytes]
Rescue = Callable[[ChunkRef, BackupdError], "bytes | memoryview"]


class ArchiveReader:
    """Fetches, decompresses and checks chunks ahead of their reader, in order.

    `fetch(archive, offset, size)` returns exactly that range of a data object, `codec(archive)` what its frames are
    compressed with; both are called from several threads. So is `rescue`, if there is one, for every chunk that is
    damaged or could not be fetched: it gets it elsewhere, checked, or raises. `aside` is called now and then by the
    thread that reads.

    Memory: (threads + 2) fetches of at most 4 MiB stored and 8 MiB plain (or a single chunk, if that is larger), and
    for each thread a frame that is fetched again.
    """

    def __init__(
        self,
        fetch: Fetch,
        codec: Callable[[int], Codec],
        *,
        name: str,
        threads: int,
        rescue: Rescue | None = None,
        aside: Callable[[], None] | None = None,
    ) -> None:
        self._fetch = fetch
        self._rescue = rescue
        self._aside = aside
        self._codec = codec
        self._name = name
        self._threads = threads

    def chunks(self, refs: Iterable[ChunkRef]) -> Generator[bytes | memoryview, None, None]:
        """The plain chunks, in the order of `refs`; IntegrityError at the first that is not what was stored."""
        pool = ThreadPoolExecutor(self._threads, thread_name_prefix="unpack")
        in_flight: deque[Future[list[bytes | memoryview]]] = deque()
        try:
            for group in _groups(refs):
                in_flight.append(pool.submit(self._load, group))
                if len(in_flight) > self._threads + 1:
                    yield from self._result(in_flight.popleft())
            while in_flight:
                yield from self._result(in_flight.popleft())
        finally:
            pool.shutdown(cancel_futures=True)

    def _result(self, future: Future[list[bytes | memoryview]]) -> list[bytes | memoryview]:
        chunks = future.result()
        if self._aside is not None:
            self._aside()
        return chunks

    def _load(self, group: list[ChunkRef]) -> list[bytes | memoryview]:
        archive, start = group[0].archive, group[0].offset
        try:
            stored = memoryview(self._fetch(archive, start, group[-1].offset + group[-1].stored_size - start))
        except (IntegrityError, StoreError) as exc:
            if self._rescue is None:
                raise
            return [self._rescue(ref, exc) for ref in group]
        codec = self._codec(archive)
        return [self._checked(codec, ref, stored[ref.offset - start :][: ref.stored_size]) for ref in group]

    def _checked(self, codec: Codec, ref: ChunkRef, frame: memoryview) -> bytes | memoryview:
        try:
            return unpack(codec, ref, frame, self._name)
        except IntegrityError as exc:
            if self._rescue is None:
                raise
            return self._rescue(ref, exc)


def unpack(codec: Codec, ref: ChunkRef, frame: memoryview, name: str) -> bytes | memoryview:
    """The plain chunk of a stored frame; IntegrityError, with that name in it, if it is not what was stored."""
    try:
        plain = codec.decompress(frame, ref.plain_size)
    except IntegrityError as exc:
        raise IntegrityError(f"{name}: damaged at offset {ref.offset}: {exc}") from exc
    if blake3(plain).hexdigest() != ref.digest:
        raise IntegrityError(f"{name}: a chunk at offset {ref.offset} is not what was stored")
    return plain


def _groups(refs: Iterable[ChunkRef]) -> Iterator[list[ChunkRef]]:
    """Runs of chunks that lie behind each other in one data object, up to the size of a fetch."""
    group: list[ChunkRef] = []
    stored = plain = 0
    for ref in refs:
        follows = group and ref.archive == group[-1].archive and ref.offset == group[-1].offset + group[-1].stored_size
        if group and not (
            follows and stored + ref.stored_size <= _FETCH_STORED and plain + ref.plain_size <= _FETCH_PLAIN
        ):
            yield group
            group = []
            stored = plain = 0
        group.append(ref)
        stored += ref.stored_size
        plain += ref.plain_size
    if group:
        yield group


def select(refs: Iterable[ChunkRef], ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, ChunkRef]]:
    """The chunks that hold the given plain ranges `(start, end)`, sorted and not overlapping, each with its offset.

    The offset is that of the chunk in the plain stream. A chunk that several ranges touch comes once.
    """
    position = 0
    wanted = ((start, end) for start, end in ranges if start < end)
    current = next(wanted, None)
    for ref in refs:
        while current is not None and current[1] <= position:
            current = next(wanted, None)
        if current is None:
            return
        if current[0] < position + ref.plain_size:
            yield position, ref
        position += ref.plain_size
