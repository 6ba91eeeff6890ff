"""Parts of an archive's tar stream, reading only the chunks that hold them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from backupd.archive import ChunkRef, select
from backupd.repository.manifest import Archive
from backupd.repository.repository import Repository

# Two blocks of zeros end a tar stream (POSIX.1-2017, pax, "ustar Interchange Format").
END_OF_TAR = bytes(1024)


def read_ranges(
    repository: Repository, archive: Archive, ranges: Sequence[tuple[int, int]]
) -> Iterator[bytes | memoryview]:
    """The plain bytes of the given ranges `(start, end)` of the stream, sorted and not overlapping, in order."""
    index = repository.index(archive)
    starts: list[int] = []

    def wanted() -> Iterator[ChunkRef]:
        for position, ref in select(repository.checked(index, archive), ranges):
            starts.append(position)
            yield ref

    pending = list(ranges)
    for number, chunk in enumerate(repository.reader(archive, index.archives).chunks(wanted())):
        view = memoryview(chunk)
        begin = starts[number]
        end = begin + len(view)
        while pending and pending[0][0] < end:
            start, stop = pending[0]
            yield view[max(start, begin) - begin : min(stop, end) - begin]
            if stop > end:
                break
            pending.pop(0)
