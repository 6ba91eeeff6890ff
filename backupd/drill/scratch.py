"""A snapshot's volumes in a sandbox: restored, measured, and looked into file by file."""

from __future__ import annotations

import re
import tarfile
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BufferedReader
from itertools import chain
from pathlib import Path

from msgspec import Struct, field

from backupd.archive import Member
from backupd.archive.pieces import PieceReader
from backupd.drill.options import DrillOptions
from backupd.drill.probes import OutOfTime, Results, check_database
from backupd.drill.sniff import Sniffer
from backupd.errors import SourceError
from backupd.model import MIB, Volume, VolumeSpec
from backupd.repository import END_OF_TAR, Archive, Repository, read_ranges, select_paths, spans
from backupd.restore.swap import Swap
from backupd.runtime import Runtime
from backupd.sandbox import Sandbox

_BESIDE = ("", "-wal", "-journal")


class Scratch(Struct):
    """One volume of the drill: `volume` takes the place of `source`. `databases` are SQLite's, by path, with sizes."""

    archive: Archive
    spec: VolumeSpec
    options: DrillOptions
    volume: Volume
    source: Volume
    seconds: float = 0.0
    databases: dict[str, int] = field(default_factory=dict)
    files: Results = field(default_factory=lambda: Results("restore", "files"))


def restore_into(scratch: Scratch, repository: Repository, runtime: Runtime) -> None:
    """Extract the archive, every chunk checked. IntegrityError before a damaged byte is written."""
    archive = scratch.archive
    began = time.monotonic()
    runtime.progress.begin(f"restoring {archive.volume} for the drill", archive.plain_size)
    sniffer = Sniffer(repository.files(archive), archive.plain_size)
    try:
        with runtime.engine.tar_in(scratch.volume, acls=archive.has_acls) as sink:
            for chunk in sniffer.through(repository.tar(archive)):
                sink.write(chunk)
                runtime.progress.advance(len(chunk))
            report = sink.finish()
    finally:
        runtime.progress.end()
    scratch.seconds = time.monotonic() - began
    scratch.databases = sniffer.found
    scratch.files.counts |= {"files": archive.members, "bytes": archive.plain_size}
    scratch.files.proven(f"{archive.members:,} files restored, every chunk as it was written")
    for warning in report.warnings:
        scratch.files.warning(f"tar: {warning}")


def refuse_too_little_room(scratches: Iterable[Scratch], runtime: Runtime) -> None:
    """SourceError if the data would not leave a tenth of what they take: the stack works on the same disk."""
    needed: dict[str, int] = {}
    free: dict[str, int] = {}
    for scratch in scratches:
        survey = Swap(runtime.engine, scratch.volume, "none").survey()
        needed[survey.device] = needed.get(survey.device, 0) + scratch.archive.plain_size
        free[survey.device] = survey.free_bytes
    for device, size in needed.items():
        if free[device] < size * 11 // 10:
            raise SourceError(
                f"{free[device] // MIB} MiB are free, and the drill needs {-(-size * 11 // 10 // MIB)} MiB",
                hint="make room, or drill volume by volume with --volume",
            )


def sizes(archive: Archive, repository: Repository, pattern: re.Pattern[str]) -> dict[str, int]:
    """The sizes of the files whose paths match, in bytes, by path."""
    return {
        member.path: member.size
        for member in repository.files(archive)
        if member.kind == "file" and pattern.search(member.path)
    }


def check_databases(scratch: Scratch, repository: Repository, sandbox: Sandbox, directory: Path) -> Results | None:
    """PRAGMA integrity_check on every SQLite database; None if there is none.

    Those that this process does not see are copied out of the repository into `directory`, one at a time.
    """
    if not scratch.databases:
        return None
    results = Results("sqlite", scratch.archive.volume)
    deadline = time.monotonic() + scratch.options.probe_seconds
    root = sandbox.directory(scratch.volume)
    for name, size in scratch.databases.items():
        if root is None and size > scratch.options.sqlite_limit_bytes:
            results.skipped(f"{name}: not checked, it is larger than drill.sqlite_limit")
            continue
        try:
            if time.monotonic() > deadline:
                raise OutOfTime("the time for it is over")
            if root is not None:
                check_database(root / name, name, deadline, results)
            else:
                with _fetched(scratch.archive, repository, name, directory) as path:
                    check_database(path, name, deadline, results)
        except OutOfTime as exc:
            results.skipped(f"{name}: not checked: {exc}")
    return results


@contextmanager
def _fetched(archive: Archive, repository: Repository, name: str, directory: Path) -> Iterator[Path]:
    """A database with its journal or log, in a directory of its own: chunks out of the store, checked as ever."""
    wanted = {f"{name}{suffix}": f"database{suffix}" for suffix in _BESIDE}
    selection = select_paths(
        lambda: spans(repository.files(archive), archive.plain_size),
        [member.path for member in repository.files(archive) if _is_plain(member, wanted)],
    )
    with tempfile.TemporaryDirectory(dir=directory, prefix="sqlite-") as place:
        pieces = chain(read_ranges(repository, archive, selection.ranges), [END_OF_TAR])
        with tarfile.open(fileobj=BufferedReader(PieceReader(pieces), MIB), mode="r|") as tar:
            for entry in tar:
                target = wanted.get(str(Path(entry.name)))
                content = tar.extractfile(entry) if entry.isreg() and target else None
                if content is not None and target:
                    with Path(place, target).open("wb") as file:
                        while piece := content.read(MIB):
                            file.write(piece)
        yield Path(place, "database")


def _is_plain(member: Member, wanted: Iterable[str]) -> bool:
    return member.kind == "file" and member.path in wanted
