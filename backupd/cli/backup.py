"""`backupd backup`."""

from __future__ import annotations

from typing import Annotated

import typer

from backupd.backup import BackupResult
from backupd.cli import words
from backupd.cli.options import Session, command
from backupd.cli.output import described
from backupd.jobs.backup import judge_backup, run_backup, where


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, "backup")
    def backup(
        session: Session,
        plan: Annotated[str | None, typer.Argument(help="The plan to run, if there are several.")] = None,
        volume: Annotated[
            list[str] | None,
            typer.Option(
                "--volume",
                metavar="V",
                help="Only this volume of the plan; repeatable. It does not count as a run of the plan.",
            ),
        ] = None,
    ) -> None:
        """Take a snapshot now.

        Exit code 0: all volumes are in it and all stores have it; 3: some are missing, and named; 1: there is none.
        """
        name = session.plan_name(plan)
        session.settings.plan(name)  # before anything is contacted
        with session.recorder().run("backup", name, part=bool(volume)) as draft:
            result = run_backup(session.site, name, draft, volume or ())
            _show(session, result)
            judge_backup(result)


def _show(session: Session, result: BackupResult) -> None:
    manifest, output = result.manifest, session.output
    output.document(
        {
            "snapshot": described(manifest),
            "store": result.store,
            "stores": result.stores,
            "store_failures": result.store_failures,
        }
    )
    output.table(
        ("VOLUME", "KIND", "DATA", "NEW", "STORED", "FILES", "TIME"),
        [
            (
                archive.volume,
                "full" if archive.full else "incremental",
                words.size(archive.plain_size),
                words.size(archive.new_size),
                words.size(archive.stored_size),
                f"{archive.members:,}",
                words.duration(archive.finished - archive.started),
            )
            for archive in manifest.archives
        ],
        right=("DATA", "NEW", "STORED", "FILES", "TIME"),
    )
    for archive in manifest.archives:
        warn_about(session, archive.volume, archive.warnings, archive.warning_count)
    output.line(
        f"snapshot {manifest.short_id} is in {where(result)}"
        f" ({words.size(manifest.new_stored_size)} added, {words.duration(manifest.finished - manifest.time)})"
    )


def warn_about(session: Session, volume: str, warnings: list[str], count: int) -> None:
    """Name what tar warned of, on standard error."""
    for warning in warnings:
        session.output.warn(f"{volume}: {warning}")
    if count > len(warnings):
        session.output.warn(f"{volume}: and {words.count(count - len(warnings), 'more warning')}")
