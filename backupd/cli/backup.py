"""`backupd backup`."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from backupd import recover
from backupd.backup import BackupResult, back_up
from backupd.cli import words
from backupd.cli.options import Session, command
from backupd.cli.output import described
from backupd.errors import PartialFailure, SourceError, UsageError
from backupd.runtime import Runtime
from backupd.wiring import make_plan


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, "backup")
    def backup(
        session: Session,
        plan: Annotated[str | None, typer.Argument(help="The plan to run, if there are several.")] = None,
        volume: Annotated[
            list[str] | None, typer.Option("--volume", metavar="V", help="Only this volume of the plan; repeatable.")
        ] = None,
    ) -> None:
        """Take a snapshot now.

        Exit code 0: all volumes are in it and all stores have it; 3: some are missing, and named; 1: there is none.
        """
        name = session.plan_name(plan)
        session.settings.plan(name)  # before anything is contacted
        runtime = session.runtime()
        chosen = make_plan(session.settings, name, runtime.engine)
        if volume:
            known = [spec.name for spec in chosen.volumes]
            if strangers := [name for name in volume if name not in known]:
                raise UsageError(
                    f"plan {chosen.name} has no volume {', '.join(strangers)}", hint=f"it has: {', '.join(known)}"
                )
            chosen = replace(chosen, volumes=tuple(spec for spec in chosen.volumes if spec.name in volume))
        finish_interrupted(session, runtime)
        stores = session.stores(chosen.stores)
        result = back_up(chosen, runtime, stores)
        _show(session, result)
        for store in stores if session.verbose else ():
            facts = store.facts()
            details = ", ".join(f"{key}: {value}" for key, value in facts.details.items())
            session.detail(f"store {store.name}: conditional create: {facts.conditional_create}, {details}")
        if not result.complete:
            trouble = bool(result.manifest.all_trouble)
            hint = "`docker ps -a` shows the containers; `backupd recover` lets go what is held" if trouble else None
            raise PartialFailure(_missing(result), hint=hint or "the next run tries again")


def finish_interrupted(session: Session, runtime: Runtime) -> None:
    """Bring volumes that a killed restore left in between to one side, before anything reads or writes them."""
    try:
        for recovery in recover.recover(runtime):
            session.output.warn(f"{recovery.subject}: {recovery.outcome}")
    except SourceError as exc:  # that volume's own backup or restore will fail, and say why
        session.output.warn(str(exc))


def _show(session: Session, result: BackupResult) -> None:
    manifest, output = result.manifest, session.output
    output.document({"snapshot": described(manifest), "store": result.store, "store_failures": result.store_failures})
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
        f"snapshot {manifest.short_id} is in store {result.store}"
        f" ({words.size(manifest.new_stored_size)} added, {words.duration(manifest.finished - manifest.time)})"
    )


def warn_about(session: Session, volume: str, warnings: list[str], count: int) -> None:
    """Name what tar warned of, on standard error."""
    for warning in warnings:
        session.output.warn(f"{volume}: {warning}")
    if count > len(warnings):
        session.output.warn(f"{volume}: and {words.count(count - len(warnings), 'more warning')}")


def _missing(result: BackupResult) -> str:
    parts = []
    failed = [failure for failure in result.manifest.failures if not failure.optional]
    if failed:
        parts.append("lacks " + "; ".join(f"volume {failure.volume} ({failure.error})" for failure in failed))
    if result.store_failures:
        away = "; ".join(error.removeprefix(f"store {name}: ") for name, error in result.store_failures.items())
        parts.append(f"could not be brought to store {', '.join(result.store_failures)} ({away})")
    if result.manifest.all_trouble:
        parts.append(f"this went wrong: {'; '.join(result.manifest.all_trouble)}")
    return f"snapshot {result.manifest.short_id} is in store {result.store}, but {' and '.join(parts)}"
