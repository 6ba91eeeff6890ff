"""From sources to answers."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from backupd import history
from backupd.repository import DrillRecord, Manifest, Standing
from backupd.web import models
from backupd.web.state import PlanFacts, Sources, StoreContent, StoreState


def run(found: history.Run) -> models.Run:
    """A run."""
    volumes = {
        name: models.VolumeFigures(
            plain_bytes=one.plain_bytes,
            new_bytes=one.new_bytes,
            stored_bytes=one.stored_bytes,
            files=one.files,
            warnings=one.warnings,
            seconds=one.seconds,
            full=one.full,
        )
        for name, one in found.volumes.items()
    }
    return models.Run(
        id=found.id,
        kind=found.kind,
        plan=found.plan,
        part=found.part,
        trigger=found.trigger,
        started=found.started,
        finished=found.finished,
        seconds=found.seconds,
        outcome=found.outcome,
        snapshot=found.snapshot,
        stores=found.stores,
        volumes=volumes,
        downtime=found.downtime,
        warnings=found.warnings,
        error=found.error,
        exit_code=found.exit_code,
        notes=found.notes,
    )


def plan(facts: PlanFacts, sources: Sources) -> models.Plan:
    """A plan and its newest runs."""
    last = sources.history.last("backup", facts.name)
    good = sources.history.last("backup", facts.name, ["done"])
    due = [one.at for one in sources.daemon.status().next_runs if (one.kind, one.plan) == ("backup", facts.name)]
    return models.Plan(
        name=facts.name,
        volumes=list(facts.volumes),
        stores=list(facts.stores),
        schedule=facts.schedule,
        timezone=facts.timezone,
        max_age_seconds=facts.max_age.total_seconds() if facts.max_age else None,
        next_run=min(due, default=None),
        running=any(one.outcome == "running" for one in sources.history.runs(kind="backup", plan=facts.name, limit=1)),
        last_run=run(last) if last else None,
        last_success=good.finished if good else None,
    )


def scheduled(sources: Sources) -> list[models.Scheduled]:
    """What is due, soonest first."""
    return [
        models.Scheduled(kind=one.kind, plan=one.plan, schedule=one.schedule, timezone=one.timezone, next_run=one.at)
        for one in sorted(sources.daemon.status().next_runs, key=lambda one: one.at)
    ]


def activities(sources: Sources) -> list[models.Activity]:
    """What is under way, then what waits, in the order in which it will be begun."""
    return [models.Activity.model_validate(one.described()) for one in sources.daemon.status().activities]


def snapshots(sources: Sources) -> list[models.Snapshot]:
    """Those of all stores, newest first, each once."""
    places: dict[str, dict[str, Standing]] = {}
    manifests: dict[str, Manifest] = {}
    drills: dict[str, DrillRecord] = {}
    for store, content in _contents(sources):
        for manifest in content.manifests:
            manifests.setdefault(manifest.id, manifest)
            places.setdefault(manifest.id, {})[store] = content.standing(manifest.id)
        for record in content.drills:
            if record.snapshot not in drills or drills[record.snapshot].time < record.time:
                drills[record.snapshot] = record
    ordered = sorted(manifests.values(), key=lambda manifest: (manifest.time, manifest.id), reverse=True)
    return [_snapshot(manifest, places[manifest.id], drills.get(manifest.id)) for manifest in ordered]


def _contents(sources: Sources) -> Iterator[tuple[str, StoreContent]]:
    for store, state in sources.stores().items():
        if state.content is not None:
            yield store, state.content


def age(store: str, state: StoreState, now: datetime) -> models.StoreAge:
    """How old what is said of a store is."""
    seen = state.content.time if state.content else None
    seconds = max(0.0, (now - seen).total_seconds()) if seen else None
    return models.StoreAge(store=store, seen=seen, age_seconds=seconds, error=state.error)


def _snapshot(manifest: Manifest, stores: dict[str, Standing], drill: DrillRecord | None) -> models.Snapshot:
    return models.Snapshot(
        id=manifest.id,
        plan=manifest.plan,
        reason=manifest.reason,
        part=manifest.part,
        time=manifest.time,
        finished=manifest.finished,
        host=manifest.host,
        stores=list(stores),
        complete=manifest.complete,
        trouble=manifest.all_trouble,
        encrypted=manifest.encryption is not None,
        archives=[
            models.Archive(
                volume=archive.volume,
                full=archive.full,
                consistency=archive.consistency,
                plain_bytes=archive.plain_size,
                new_bytes=archive.new_size,
                stored_bytes=archive.stored_size,
                files=archive.members,
                warnings=archive.warning_count,
                moment=archive.moment,
            )
            for archive in manifest.archives
        ],
        missing={failure.volume: failure.error for failure in manifest.failures},
        checks={store: _check(standing) for store, standing in stores.items()},
        drill=_drill(drill) if drill else None,
    )


def _check(standing: Standing) -> models.Check:
    check = standing.check
    return models.Check(
        state=standing.state,
        problem=standing.problem,
        kind=check.kind if check else None,
        percent=check.fraction * 100 if check else None,
        time=check.time if check else None,
    )


def _drill(record: DrillRecord) -> models.Drill:
    return models.Drill(
        id=record.id,
        time=record.time,
        outcome=record.outcome,
        complete=not record.missing,
        recovery_seconds=record.recovery_seconds,
    )
