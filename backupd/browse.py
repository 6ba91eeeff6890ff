"""Looking into snapshots: what is in an archive, one file of it, what changed between two."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Literal

from msgspec import Struct

from backupd.archive import Member
from backupd.archive.pieces import PieceReader
from backupd.errors import IntegrityError, SnapshotNotFound, SourceError
from backupd.model import MIB
from backupd.repository import END_OF_TAR, Archive, Manifest, Range, Repository, below, link_target, read_ranges, spans

Change = Literal["added", "removed", "changed"]

_KINDS = {"dir": "directory", "symlink": "symbolic link", "char": "device", "block": "device", "fifo": "pipe"}
_COMPARED = ("kind", "size", "mode", "uid", "gid", "mtime", "link", "device")


class Difference(Struct, frozen=True):
    """A path that differs between two archives; `what` names the fields of Member that do, for a changed one."""

    path: str
    change: Change
    before: Member | None
    after: Member | None
    what: tuple[str, ...] = ()


def archive_of(manifest: Manifest, volume: str) -> Archive:
    """A volume's archive in a snapshot; SnapshotNotFound names what the snapshot does hold."""
    archive = manifest.archive(volume)
    if archive is None:
        held = ", ".join(archive.volume for archive in manifest.archives)
        raise SnapshotNotFound(f"snapshot {manifest.short_id} holds no volume {volume}", hint=f"it holds: {held}")
    return archive


def list_files(repository: Repository, archive: Archive, path: str = ".", *, recursive: bool) -> Iterator[Member]:
    """What is in the directory `path`, or all below it; `path` itself if it is not a directory.

    SourceError, at the end, if there is no such path.
    """
    found = False
    for member in repository.files(archive):
        if not below(member.path, path):
            continue
        found = True
        if member.path == path:
            if member.kind != "dir":
                yield member
        elif recursive or "/" not in member.path[0 if path == "." else len(path) + 1 :]:
            yield member
    if not found:
        raise _no_such(archive, path)


def cat(repository: Repository, archive: Archive, path: str, write: Callable[[bytes], object]) -> int:
    """Write a file's content, following a hard link; returns its size. Fetches only the chunks that hold it.

    Holes of a sparse file come out as zeros. SourceError if the path is not a file.
    """
    member, span = _find(repository, archive, path)
    if member.kind == "hardlink":
        member, span = _find(repository, archive, link_target(member))
    if member.kind != "file":
        raise SourceError(f"{path} is no file but a {_KINDS.get(member.kind, member.kind)}", hint=_instead(member))
    stream = PieceReader(chain(read_ranges(repository, archive, [span]), [END_OF_TAR]))
    size = 0
    try:
        with tarfile.open(fileobj=io.BufferedReader(stream, MIB), mode="r|") as tar:
            entry = tar.next()
            content = entry and tar.extractfile(entry)
            while content and (piece := content.read(MIB)):
                write(piece)
                size += len(piece)
    except tarfile.TarError as exc:
        raise IntegrityError(f"{archive.volume}: the file list does not fit the tar stream at {path}: {exc}") from exc
    if size != member.size:
        raise IntegrityError(f"{archive.volume}: {path} has {size} bytes instead of {member.size}")
    return size


def _instead(member: Member) -> str:
    """What to do about a path that is no file."""
    if member.kind == "dir":
        return "`backupd ls ID VOLUME PATH` shows what is in it, `backupd restore --path` restores it"
    if member.kind == "symlink":
        return f"it points to {member.link}; `backupd restore --path` restores it"
    return "`backupd restore --path` restores it"


def _find(repository: Repository, archive: Archive, path: str) -> tuple[Member, Range]:
    """The last member of that path, which is the one that an extraction would leave."""
    found = None
    for member, span in spans(repository.files(archive), archive.plain_size):
        if member.path == path:
            found = member, span
    if found is None:
        raise _no_such(archive, path)
    return found


def _no_such(archive: Archive, path: str) -> SourceError:
    return SourceError(f"{archive.volume} holds no {path} in this snapshot", hint="`backupd ls ID VOLUME` shows it all")


def diff(before: Iterable[Member], after: Iterable[Member]) -> list[Difference]:
    """What differs between two file lists, by path. Contents count as changed when size or mtime differ.

    Memory: one of the lists, some 500 bytes a file.
    """
    old = {member.path: member for member in before}
    differences: list[Difference] = []
    for member in after:
        was = old.pop(member.path, None)
        if was is None:
            differences.append(Difference(member.path, "added", None, member))
        elif what := tuple(field for field in _COMPARED if getattr(was, field) != getattr(member, field)):
            differences.append(Difference(member.path, "changed", was, member, what))
    differences += [Difference(path, "removed", member, None) for path, member in old.items()]
    return sorted(differences, key=lambda difference: difference.path)
