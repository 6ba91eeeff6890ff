"""One volume's stream into one archive of a repository."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from backupd.archive import ArchiveSinks, ArchiveSummary, ArchiveWriter, Codec, FileListWriter, IndexWriter
from backupd.backup.parent import Parent
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


@dataclass(frozen=True, slots=True)
class Origin:
    """What the manifest says about where a stream came from."""

    snapshot: str
    source: Volume
    tool: Tool | None
    consistency: str
    started: datetime


@dataclass(frozen=True, slots=True)
class ArchiveJob:
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
        volume = origin.source.name
        keys = [layout.data(volume, origin.snapshot, self.codec.suffix)]
        keys += [ref.key for ref in parent.objects] if parent else []
        store = self.repository.store
        with ExitStack() as stack:
            data, index_object, files_object = (
                stack.enter_context(HashedWriter(store, key, hint))
                for key, hint in (
                    (keys[0], size_hint if parent is None else None),
                    (layout.index(volume, origin.snapshot), None),
                    (layout.files(volume, origin.snapshot), None),
                )
            )
            index = IndexWriter(index_object.write, keys)
            files = FileListWriter(files_object.write)
            writer = ArchiveWriter(
                chunker=self.repository.config.chunker,
                codec=self.codec,
                sinks=ArchiveSinks(data.write, index, files),
                known=parent.known if parent else None,
                threads=self.repository.threads,
            )
            summary = self._packed(writer, stream, volume)
            report = stream.finish()
            index.close()
            files.close()
            own = data.commit()
            refs = [own, *(parent.objects if parent else ())]
            objects = _Objects(
                needs=[ref for number, ref in enumerate(refs) if number in summary.archives_used and ref is not None],
                index=_committed(index_object),
                files=_committed(files_object),
            )
        return self._archive(origin, parent, summary, report, objects)

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

    def _archive(
        self, origin: Origin, parent: Parent | None, summary: ArchiveSummary, report: TarReport, objects: _Objects
    ) -> Archive:
        return Archive(
            volume=origin.source.name,
            full=parent is None,
            base=parent.base if parent else Base(snapshot=origin.snapshot, time=origin.started),
            parent=parent.snapshot if parent else None,
            source=origin.source,
            tool=origin.tool,
            consistency=origin.consistency,
            started=origin.started,
            finished=self.clock.now(),
            plain_size=summary.plain_size,
            new_size=summary.new_plain_size,
            stored_size=summary.stored_size,
            chunks=summary.chunk_count,
            members=summary.member_count,
            features=sorted(summary.features),
            warning_count=report.warning_count,
            warnings=list(report.warnings),
            index=objects.index,
            files=objects.files,
            needs=objects.needs,
        )


@dataclass(frozen=True, slots=True)
class _Objects:
    needs: list[ObjectRef]
    index: ObjectRef
    files: ObjectRef


def _committed(writer: HashedWriter) -> ObjectRef:
    ref = writer.commit()
    if ref is None:
        raise StoreError("an index or file list came out empty")
    return ref
