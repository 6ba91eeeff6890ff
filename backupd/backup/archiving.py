"""One volume's stream into one archive of a repository."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import datetime
from types import TracebackType
from typing import Protocol, Self, cast

from msgspec import Struct

from backupd.archive import (
    ArchiveSinks,
    ArchiveSummary,
    ArchiveWriter,
    Codec,
    FileListWriter,
    IndexWriter,
    Location,
    SealedCodec,
)
from backupd.backup.parent import Parent
from backupd.backup.sealing import ObjectSink
from backupd.errors import IntegrityError, SourceError, StoreError
from backupd.model import TarReport, Tool, Volume
from backupd.ports import Clock, Progress
from backupd.repository import Archive, Base, HashedWriter, ObjectRef, Repository, layout


class Stream(Protocol):
    """A tar stream whose end has to be confirmed: a TarOutput, or a file being imported."""

    def readinto(self, buffer: memoryview) -> int:
        """See TarOutput."""
        ...

    def finish(self) -> TarReport:
        """See TarOutput."""
        ...


class Origin(Struct, frozen=True):
    """What the manifest says about where a stream came from. `number` counts the passes over one volume."""

    snapshot: str
    source: Volume
    tool: Tool | None
    consistency: str
    started: datetime
    number: int = 1


class ArchiveJob(Struct, frozen=True):
    """Stores streams in a repository, one after the other."""

    repository: Repository
    codec: Codec
    progress: Progress
    clock: Clock

    def store(self, stream: Stream, origin: Origin, parent: Parent | None, size_hint: int | None = None) -> Archive:
        """Store the stream's new chunks, then its index and file list, all durable when this returns.

        Whatever goes wrong, in the stream or in the store, leaves none of the three objects under its key, or leaves
        objects that no manifest refers to.
        """
        with self.read(stream, origin, parent, size_hint) as pending:
            return pending.commit()

    def read(self, stream: Stream, origin: Origin, parent: Parent | None, size_hint: int | None = None) -> Pending:
        """Read the stream to its end and hear that it ended well. Nothing is under its key when this returns."""
        volume, store, number = origin.source.name, self.repository.store, origin.number
        recipients = self.repository.security.recipients
        sealed = recipients is not None
        codec = self.codec if recipients is None else SealedCodec(self.codec, seal=recipients.encrypt)
        keys = [layout.data(volume, origin.snapshot, codec.suffix, number)]
        keys += [ref.key for ref in parent.objects] if parent else []
        with ExitStack() as stack:
            data, index_object, files_object = (
                stack.enter_context(HashedWriter(store, key, hint))
                for key, hint in (
                    (keys[0], size_hint if parent is None else None),
                    (layout.index(volume, origin.snapshot, number, sealed=sealed), None),
                    (layout.files(volume, origin.snapshot, number, sealed=sealed), None),
                )
            )
            index_sink = stack.enter_context(ObjectSink(index_object, recipients, keep=True))
            files_sink = stack.enter_context(ObjectSink(files_object, recipients))
            index = IndexWriter(index_sink.write, keys)
            files = FileListWriter(files_sink.write)
            writer = ArchiveWriter(
                chunker=self.repository.config.chunker,
                codec=codec,
                sinks=ArchiveSinks(data.write, index, files),
                known=parent.known if parent else None,
                like=parent.order if parent else None,
                threads=self.repository.threads,
            )
            summary = self._packed(writer, stream, volume)
            report = stream.finish()
            objects = _Objects(data, index_object, files_object, index_sink, files_sink, index, files)
            keep = self._keep_index(volume, index_sink)
            read = _Read(origin, parent, summary, report, keep)
            return Pending(read, objects, writer, self.clock, stack.pop_all())
        raise AssertionError  # pragma: no cover - the block above swallows nothing

    def _keep_index(self, volume: str, sink: ObjectSink) -> Callable[[ObjectRef], None]:
        """What keeps the index here once it is stored, for the next increment of who cannot read it there."""

        def keep(stored: ObjectRef) -> None:
            indexes = self.repository.security.indexes
            if indexes is not None and sink.kept is not None:
                indexes.keep(volume, stored.blake3, bytes(sink.kept))

        return keep

    def _packed(self, writer: ArchiveWriter, stream: Stream, volume: str) -> ArchiveSummary:
        """Pack the stream. One that is cut short is so for a reason, which `finish` knows."""
        ended = False

        def readinto(buffer: memoryview) -> int:
            nonlocal ended
            count = stream.readinto(buffer)
            ended = not count
            return count

        try:
            return writer.pack(readinto, self.progress.advance)
        except IntegrityError as exc:
            if ended:
                stream.finish()
            raise SourceError(f"{volume}: {exc}") from exc


class _Read(Struct, frozen=True):
    origin: Origin
    parent: Parent | None
    summary: ArchiveSummary
    report: TarReport
    keep_index: Callable[[ObjectRef], None]


class _Objects(Struct, frozen=True):
    data: HashedWriter
    index_object: HashedWriter
    files_object: HashedWriter
    index_sink: ObjectSink
    files_sink: ObjectSink
    index: IndexWriter
    files: FileListWriter


class Pending:
    """A stream that was read to its end and was good, and is not stored whole yet.

    Leaving the block drops what was not committed.
    """

    def __init__(
        self, read: _Read, objects: _Objects, writer: ArchiveWriter, clock: Clock, resources: ExitStack
    ) -> None:
        self._read = read
        self._objects = objects
        self._writer = writer
        self._clock = clock
        self._resources = resources
        self._data: ObjectRef | None = None
        self._data_is_stored = False

    @property
    def report(self) -> TarReport:
        """What the tar job said."""
        return self._read.report

    @property
    def new_size(self) -> int:
        """Plain bytes that were not in the store before."""
        return self._read.summary.new_plain_size

    @property
    def stored_size(self) -> int:
        """What these took in the store, in bytes."""
        return self._read.summary.stored_size

    def is_same_as(self, other: Pending) -> bool:
        """Whether it was the very same stream."""
        return self._read.summary.digest == other._read.summary.digest

    def as_parent(self) -> Parent:
        """What the next pass over the volume builds upon. Only the data object has been stored when this returns.

        The numbers of the parent's objects stay as they are, so that its `known` need not be copied.
        """
        parent, origin = self._read.parent, self._read.origin
        base = parent.base if parent else Base(snapshot=origin.snapshot, time=origin.started)
        objects = list(parent.objects) if parent else []
        order = self._writer.order
        own = self._store_data()
        if own is None:
            return Parent(parent.snapshot if parent else None, base, objects, parent.known if parent else {}, order)
        objects.append(own)
        new = {digest: place._replace(archive=len(objects)) for digest, place in self._writer.stored.items()}
        known = ChainMap(new, cast(dict[str, Location], parent.known)) if parent else new  # which only reads them
        return Parent(parent.snapshot if parent else None, base, objects, known, order)

    def commit(self, report: TarReport | None = None) -> Archive:
        """Make all three objects durable; `report` replaces the stream's own, if a later pass had the same to say."""
        objects = self._objects
        for part in (objects.index, objects.files, objects.index_sink, objects.files_sink):
            part.close()
        own = self._store_data()
        parent, summary = self._read.parent, self._read.summary
        refs = [own, *(parent.objects if parent else ())]
        needs = [ref for number, ref in enumerate(refs) if number in summary.archives_used and ref is not None]
        index, files = _committed(objects.index_object), _committed(objects.files_object)
        self._read.keep_index(index)
        return self._archive(report or self._read.report, needs, index, files)

    def _store_data(self) -> ObjectRef | None:
        if not self._data_is_stored:
            self._data = self._objects.data.commit()
            self._data_is_stored = True
        return self._data

    def _archive(self, report: TarReport, needs: Sequence[ObjectRef], index: ObjectRef, files: ObjectRef) -> Archive:
        origin, parent, summary = self._read.origin, self._read.parent, self._read.summary
        return Archive(
            volume=origin.source.name,
            full=parent is None,
            base=parent.base if parent else Base(snapshot=origin.snapshot, time=origin.started),
            parent=parent.snapshot if parent else None,
            source=origin.source,
            tool=origin.tool,
            consistency=origin.consistency,
            started=origin.started,
            finished=self._clock.now(),
            plain_size=summary.plain_size,
            new_size=summary.new_plain_size,
            stored_size=summary.stored_size,
            chunks=summary.chunk_count,
            members=summary.member_count,
            features=sorted(summary.features),
            warning_count=report.warning_count,
            warnings=list(report.warnings),
            index=index,
            files=files,
            needs=list(needs),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._resources.__exit__(exc_type, exc, tb)


def _committed(writer: HashedWriter) -> ObjectRef:
    ref = writer.commit()
    if ref is None:
        raise StoreError("an index or file list came out empty")
    return ref
