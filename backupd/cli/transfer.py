"""`backupd export` and `backupd import`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from backupd import browse, transfer
from backupd.backup import open_or_create
from backupd.cli import words
from backupd.cli.options import Session, command
from backupd.cli.output import described
from backupd.cli.snapshots import Id, VolumeName
from backupd.errors import SourceError, UsageError, VolumeMissing
from backupd.model import Volume, VolumeSpec
from backupd.repository import Archive, Repository
from backupd.statefile import new_private


def register(app: typer.Typer) -> None:
    """Add the commands."""

    @command(app, "export")
    def export(
        session: Session,
        id_: Id,
        volume: VolumeName,
        output: Annotated[
            Path | None, typer.Option("--output", "-o", metavar="FILE", help="To this file, not standard output.")
        ] = None,
    ) -> None:
        """Write a volume of a snapshot as a plain tar."""
        if output is None and (session.output.json or sys.stdout.isatty()):
            raise UsageError("a tar is not for reading", hint="give a file with -o, or pipe it somewhere")
        repository, manifest = session.find(id_, [volume])
        archive = browse.archive_of(manifest, volume)
        if output is None:
            transfer.export_tar(repository, archive, sys.stdout.buffer.write, session.output.progress)
            sys.stdout.buffer.flush()
        else:
            size = _export_file(session, repository, archive, output)
            session.output.document({"snapshot": manifest.id, "volume": volume, "file": str(output), "bytes": size})
            session.output.line(f"{output}: {words.size(size)}")

    @command(app, "import")
    def import_(
        session: Session,
        volume: Annotated[str, typer.Argument(metavar="VOLUME", help="A volume of the configuration.")],
        file: Annotated[Path, typer.Argument(metavar="FILE", help="A .tar, .tar.gz or .tar.zst.")],
        allow_links: Annotated[
            bool, typer.Option("--allow-links", help="Accept symbolic links that point outside of the volume.")
        ] = False,
    ) -> None:
        """Adopt a tar that was made by hand, as a snapshot."""
        if not file.is_file():
            raise UsageError(f"{file} is not a file")
        runtime = session.runtime()
        spec = session.settings.volume_spec(volume)
        try:
            source = runtime.engine.find(spec)
        except VolumeMissing:
            source = _unborn(spec)
        name = session.store_name or next(iter(session.settings.stores))
        (store,) = session.stores((name,))
        manifest = transfer.import_tar(file, source, open_or_create(store, runtime), runtime, allow_links=allow_links)
        archive = manifest.archives[0]
        session.output.document({"snapshot": described(manifest), "store": name})
        session.output.line(
            f"snapshot {manifest.short_id} in store {name} holds {volume}:"
            f" {words.size(archive.plain_size)} in {words.count(archive.members, 'file')}"
        )


def _unborn(spec: VolumeSpec) -> Volume:
    if spec.volume is not None:
        return Volume(name=spec.name, kind="volume", source=spec.volume)
    return Volume(name=spec.name, kind="directory", source=spec.path or "")


def _export_file(session: Session, repository: Repository, archive: Archive, target: Path) -> int:
    """The file, which is nobody else's to read, appears under its name only when it is whole and on disk."""
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        with new_private(partial) as file:
            try:
                size = transfer.export_tar(repository, archive, file.write, session.output.progress)
                file.flush()
                os.fsync(file.fileno())
                partial.replace(target)
            except BaseException:
                partial.unlink(missing_ok=True)
                raise
    except OSError as exc:
        raise SourceError(f"cannot write {target}: {exc.strerror}") from exc
    return size
