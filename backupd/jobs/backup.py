"""A backup as a whole run."""

from __future__ import annotations

from collections.abc import Collection

from msgspec.structs import replace

from backupd.backup import BackupResult, back_up
from backupd.errors import PartialFailure, UsageError
from backupd.history import VolumeFigures
from backupd.jobs.busy import refuse_if_busy
from backupd.jobs.recover import finish_interrupted
from backupd.jobs.site import Site
from backupd.model import Plan
from backupd.ports import Store
from backupd.repository import Archive, Manifest
from backupd.runs import Draft
from backupd.settings.schedules import Overlap
from backupd.wiring import make_plan

_WARNINGS = 5


def run_backup(
    site: Site, name: str, draft: Draft, volumes: Collection[str] = (), overlap: Overlap | None = None
) -> BackupResult:
    """Take a snapshot of a plan, or of those volumes of it; what came of it is in the draft.

    A volume that another backupd works on is one that failed, unless `overlap` says otherwise: with `skip` that is a
    RunSkipped, before anything is touched; with `wait`, or once the run has begun, it waits as long as it takes.
    """
    runtime = site.runtime()
    if overlap is not None:
        runtime = replace(runtime, volume_wait_seconds=float("inf"))
    plan = _chosen(make_plan(site.settings, name, runtime.engine), volumes)
    finish_interrupted(site, runtime)
    if overlap == "skip":
        refuse_if_busy(plan, runtime)
    stores = site.stores(plan.stores)
    result = back_up(plan, runtime, stores)
    _fill_in(draft, result)
    for store in stores:
        site.detail(f"store {store.name}: {_facts(store)}")
    return result


def judge_backup(result: BackupResult) -> None:
    """PartialFailure, naming all that is missing, unless all of it went well."""
    if not result.complete:
        trouble = bool(result.manifest.all_trouble)
        hint = "`docker ps -a` shows the containers; `backupd recover` lets go what is held" if trouble else None
        raise PartialFailure(_missing(result), hint=hint or "the next run tries again")


def where(result: BackupResult) -> str:
    """The stores that have the snapshot, in words."""
    return f"store{'s' if len(result.stores) > 1 else ''} {' and '.join(result.stores)}"


def _chosen(plan: Plan, volumes: Collection[str]) -> Plan:
    known = [spec.name for spec in plan.volumes]
    if strangers := [name for name in volumes if name not in known]:
        raise UsageError(f"plan {plan.name} has no volume {', '.join(strangers)}", hint=f"it has: {', '.join(known)}")
    if not volumes:
        return plan
    return replace(plan, volumes=tuple(spec for spec in plan.volumes if spec.name in volumes), part=True)


def _fill_in(draft: Draft, result: BackupResult) -> None:
    manifest = result.manifest
    downtime: dict[str, float] = {}
    for archive in manifest.archives:
        downtime |= archive.downtime
    draft.set(
        snapshot=manifest.id,
        stores=list(result.stores),
        volumes={archive.volume: _figures(archive) for archive in manifest.archives},
        downtime=downtime,
        warnings=sum(archive.warning_count for archive in manifest.archives),
    )
    for text in _shortcomings(manifest, result):
        draft.note(text)


def _figures(archive: Archive) -> VolumeFigures:
    return VolumeFigures(
        plain_bytes=archive.plain_size,
        new_bytes=archive.new_size,
        stored_bytes=archive.stored_size,
        files=archive.members,
        warnings=archive.warning_count,
        seconds=(archive.finished - archive.started).total_seconds(),
        full=archive.full,
    )


def _shortcomings(manifest: Manifest, result: BackupResult) -> list[str]:
    return [
        *(f"volume {failure.volume} is not in it: {failure.error}" for failure in manifest.failures),
        *(
            f"store {name}: {error}" if name in result.stores else f"store {name} lacks it: {error}"
            for name, error in result.store_failures.items()
        ),
        *manifest.all_trouble,
        *(f"{archive.volume}: {warning}" for archive in manifest.archives for warning in archive.warnings[:_WARNINGS]),
    ]


def _facts(store: Store) -> str:
    facts = store.facts()
    details = ", ".join(f"{key}: {value}" for key, value in facts.details.items())
    return f"conditional create: {facts.conditional_create}, {details}"


def _missing(result: BackupResult) -> str:
    parts = []
    failed = [failure for failure in result.manifest.failures if not failure.optional]
    if failed:
        parts.append("lacks " + "; ".join(f"volume {failure.volume} ({failure.error})" for failure in failed))
    away = {name: error for name, error in result.store_failures.items() if name not in result.stores}
    if away:
        why = "; ".join(error.removeprefix(f"store {name}: ") for name, error in away.items())
        parts.append(f"could not be brought to store {', '.join(away)} ({why})")
    parts += [
        f"not all is well in store {name} ({error.removeprefix(f'{name}: ')})"
        for name, error in result.store_failures.items()
        if name in result.stores
    ]
    if result.manifest.all_trouble:
        parts.append(f"this went wrong: {'; '.join(result.manifest.all_trouble)}")
    return f"snapshot {result.manifest.short_id} is in {where(result)}, but {' and '.join(parts)}"
