"""`backupd ls`, `cat` and `diff`."""

from __future__ import annotations

import os
import stat
import sys
from datetime import UTC, datetime
from typing import Annotated

import typer

from backupd import browse
from backupd.archive import Member
from backupd.cli import words
from backupd.cli.options import Session, command
from backupd.cli.snapshots import Id, VolumeName
from backupd.errors import UsageError
from backupd.repository import normalized

_TYPES = {
    "file": stat.S_IFREG,
    "hardlink": stat.S_IFREG,
    "dir": stat.S_IFDIR,
    "symlink": stat.S_IFLNK,
    "char": stat.S_IFCHR,
    "block": stat.S_IFBLK,
    "fifo": stat.S_IFIFO,
}
_SIGNS = {"added": "+", "removed": "-", "changed": "~"}


def register(app: typer.Typer) -> None:
    """Add the commands."""

    @command(app, "ls")
    def ls(
        session: Session,
        id_: Id,
        volume: VolumeName,
        path: Annotated[str, typer.Argument(help="A directory or file in it.")] = ".",
        recursive: Annotated[bool, typer.Option("--recursive", "-R", help="All that is below, too.")] = False,
    ) -> None:
        """The files of a snapshot."""
        repository, manifest = session.find(id_, [volume])
        archive = browse.archive_of(manifest, volume)
        members = browse.list_files(repository, archive, normalized(path), recursive=recursive)
        if session.output.json:
            session.output.document({"snapshot": manifest.id, "volume": volume, "files": [_json(m) for m in members]})
            return
        for member in members:
            session.output.line(_long(member))

    @command(app, "cat")
    def cat(
        session: Session,
        id_: Id,
        volume: VolumeName,
        path: Annotated[str, typer.Argument(help="A file in it.")],
    ) -> None:
        """Write one file of a snapshot to standard output."""
        if session.output.json:
            raise UsageError("`cat` writes the file itself, not JSON")
        repository, manifest = session.find(id_, [volume])
        browse.cat(repository, browse.archive_of(manifest, volume), normalized(path), sys.stdout.buffer.write)
        sys.stdout.buffer.flush()

    @command(app, "diff")
    def diff(
        session: Session,
        before: Annotated[str, typer.Argument(metavar="ID", help="The older snapshot.")],
        after: Annotated[str, typer.Argument(metavar="ID", help="The newer snapshot.")],
        volume: Annotated[str | None, typer.Argument(help="Only this volume.")] = None,
    ) -> None:
        """What changed from one snapshot to another."""
        first, old = session.find(before)
        second, new = session.find(after)
        names = [volume] if volume else sorted({archive.volume for archive in (*old.archives, *new.archives)})
        document = {}
        for name in names:
            differences = browse.diff(
                first.files(browse.archive_of(old, name)) if volume or old.archive(name) else [],
                second.files(browse.archive_of(new, name)) if volume or new.archive(name) else [],
            )
            document[name] = [
                {"path": _printable(item.path), "change": item.change, "what": item.what} for item in differences
            ]
            for item in differences:
                what = f"  ({', '.join(item.what)})" if item.what else ""
                session.output.line(f"{_SIGNS[item.change]} {name}/{_printable(item.path)}{what}")
            counts = {change: sum(item.change == change for item in differences) for change in _SIGNS}
            session.output.line(
                f"{name}: {counts['added']:,} added, {counts['removed']:,} removed, {counts['changed']:,} changed"
            )
        session.output.document({"before": old.id, "after": new.id, "volumes": document})


def _printable(name: str) -> str:
    """The name on one line: bytes that are not UTF-8 and control characters are shown as `\\x…`."""
    decoded = os.fsencode(name).decode(errors="backslashreplace")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in decoded)


def _json(member: Member) -> dict[str, object]:
    return {
        "path": _printable(member.path),
        "kind": member.kind,
        "size": member.size,
        "mode": f"{member.mode:04o}",
        "uid": member.uid,
        "gid": member.gid,
        "mtime": member.mtime / 1e9,
        "link": _printable(member.link) or None,
    }


def _long(member: Member) -> str:
    mode = stat.filemode(_TYPES.get(member.kind, stat.S_IFREG) | member.mode)
    time = words.moment(datetime.fromtimestamp(member.mtime / 1e9, UTC)) if member.mtime >= 0 else str(member.mtime)
    arrow = {"symlink": " → ", "hardlink": " = "}.get(member.kind)
    link = f"{arrow}{_printable(member.link)}" if arrow else ""
    owner = f"{member.uid}:{member.gid}"
    return f"{mode} {owner:>11} {words.size(member.size):>9} {time} {_printable(member.path)}{link}"
