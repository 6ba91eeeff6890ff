"""Plain tars out of a repository, and hand-made tars into one."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeVar

import zstandard

from backupd.archive import TarWalker, codec_for
from backupd.archive.guard import TarGuard
from backupd.archive.pieces import PieceReader
from backupd.backup import ArchiveJob, Origin
from backupd.errors import IntegrityError, SourceError
from backupd.lease import Lease, commit
from backupd.model import KIB, MIB, Compression, TarReport, Volume
from backupd.ports import Progress
from backupd.repository import Archive, Manifest, Repository
from backupd.runtime import Runtime

_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
# Compressed bytes decompressed at a time: 16 KiB of the densest zstd come to 512 MiB, of real data to some 40 KiB.
_ZSTD_STEP = 16 * KIB

_FORMATS = "what can be imported is a tar, as it is or compressed with gzip or zstd"

IMPORT_PLAN = "import"

_T = TypeVar("_T")


def export_tar(
    repository: Repository, archive: Archive, write: Callable[[bytes | memoryview], object], progress: Progress
) -> int:
    """Write the archive's tar stream, uncompressed, every chunk checked; returns its size in bytes."""
    progress.begin(archive.volume, archive.plain_size)
    try:
        for chunk in repository.tar(archive):
            write(chunk)
            progress.advance(len(chunk))
    finally:
        progress.end()
    return archive.plain_size


def import_tar(path: Path, volume: Volume, repository: Repository, runtime: Runtime, *, allow_links: bool) -> Manifest:
    """Adopt a tar, plain or compressed with gzip or zstd, as a snapshot of one volume.

    The file is read twice: nothing is stored before all of it was found to be a tar whose members stay inside the
    volume. SourceError for one that does not, IntegrityError for one that is damaged or no tar at all. Symbolic links
    to places outside are refused unless `allow_links`, since a hostile tar begins with one.
    """
    _check(path, TarGuard(allow_links=allow_links), runtime.progress)
    with runtime.leases(repository.store).shared(f"import of {volume.name}") as lease:
        return _store(path, volume, repository, runtime, lease)


def _store(path: Path, volume: Volume, repository: Repository, runtime: Runtime, lease: Lease) -> Manifest:
    started = runtime.clock.now()
    job = ArchiveJob(repository, codec_for(Compression()), runtime.progress, runtime.clock)
    runtime.progress.begin(volume.name)
    try:
        with path.open("rb") as file:
            archive = job.store(_Import(file, path), Origin(lease.id, volume, None, "import", started), None)
    finally:
        runtime.progress.end()
    manifest = Manifest(
        id=lease.id,
        time=started,
        finished=runtime.clock.now(),
        plan=IMPORT_PLAN,
        reason="import",
        host=runtime.host,
        program=runtime.program,
        archives=[archive],
        encryption=repository.encryption,
    )
    return commit(repository, manifest, lease)


class _Import(PieceReader):
    """A tar file as a Stream, decompressed on the way."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        super().__init__(_plain(file, path))

    def finish(self) -> TarReport:
        """See Stream."""
        return TarReport()


def _check(path: Path, guard: TarGuard, progress: Progress) -> None:
    progress.begin(f"checking {path.name}")
    walker = TarWalker()
    try:
        with path.open("rb") as file:
            for piece in _plain(file, path):
                for member in _understood(path, partial(walker.feed, memoryview(piece))):
                    guard.check(member)
                progress.advance(len(piece))
        _understood(path, walker.finish)
        guard.finish()
    except OSError as exc:
        raise SourceError(f"cannot read {path}: {exc.strerror}") from exc
    finally:
        progress.end()
    if not walker.members:
        raise IntegrityError(f"{path} holds no files")


def _understood(path: Path, step: Callable[[], _T]) -> _T:
    try:
        return step()
    except IntegrityError as exc:
        raise IntegrityError(f"{path} cannot be imported: {exc}", hint=_FORMATS) from exc


def _plain(file: BinaryIO, path: Path) -> Iterator[bytes]:
    """The uncompressed content in pieces of bounded size; IntegrityError if the compressed data are damaged."""
    magic = file.read(4)
    file.seek(0)
    try:
        if magic.startswith(_GZIP_MAGIC):
            with gzip.GzipFile(fileobj=file) as plain:
                yield from iter(lambda: plain.read(MIB), b"")
        elif magic == _ZSTD_MAGIC:
            yield from _zstd(file)
        else:
            yield from iter(lambda: file.read(MIB), b"")
    except (EOFError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError) as exc:
        raise IntegrityError(f"{path} is damaged: {exc}") from exc


def _zstd(file: BinaryIO) -> Iterator[bytes]:
    """All frames of a zstd file; ZstdError if the last one is cut short, which zstandard's own reader lets pass."""
    decompressor = zstandard.ZstdDecompressor().decompressobj(read_across_frames=False)
    rest = b""
    while piece := rest or file.read(_ZSTD_STEP):
        if decompressor.eof:
            decompressor = zstandard.ZstdDecompressor().decompressobj(read_across_frames=False)
        yield decompressor.decompress(piece)
        rest = decompressor.unused_data if decompressor.eof else b""
    if not decompressor.eof:
        raise zstandard.ZstdError("the last frame is cut short")
