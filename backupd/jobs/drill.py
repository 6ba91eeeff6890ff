"""A drill as a whole run."""

from __future__ import annotations

from collections.abc import Collection

from msgspec import Struct

from backupd.drill.operation import DrillRequest, OptionsOf, drill
from backupd.drill.options import DrillOptions
from backupd.errors import BackupdError, DrillFailed, IntegrityError, NoRepository, SnapshotNotFound
from backupd.jobs.recover import finish_interrupted
from backupd.jobs.site import Site
from backupd.model import VolumeSpec
from backupd.repository import DrillRecord, Manifest, Repository, keep_drill
from backupd.runs import Draft
from backupd.settings import Settings


class Drilled(Struct, frozen=True):
    """What a drill found, and why its record is not with the snapshot, if it is not."""

    record: DrillRecord
    store: str
    trouble: str | None


def newest_to_drill(site: Site, plan: str, draft: Draft) -> tuple[Repository, Manifest]:
    """A plan's newest snapshot, for a drill by schedule; RunSkipped before there is any.

    One of a part of the plan, or of another machine, is drilled only where there is no other.
    """
    try:
        return site.newest_of(plan, run=True)
    except (NoRepository, SnapshotNotFound) as exc:
        raise draft.too_early(str(exc)) from exc


def run_drill(site: Site, found: tuple[Repository, Manifest], draft: Draft, volumes: Collection[str] = ()) -> Drilled:
    """Drill a snapshot, or those volumes of it, and keep the record with it."""
    repository, manifest = found
    runtime = site.runtime()
    finish_interrupted(site, runtime)
    manifest = repository.opened(manifest)
    draft.set(snapshot=manifest.id, stores=[repository.store.name])
    settings = site.settings
    request = DrillRequest(tuple(volumes), lambda name: _spec(settings, name), _options(settings))
    site.progress.note(f"drill of snapshot {manifest.short_id} of {manifest.time:%Y-%m-%d %H:%M:%S} UTC")
    record = drill(request, manifest, repository, runtime)
    trouble = _keep(site, repository, record)
    findings = [(volume.volume, finding) for volume in record.volumes for finding in volume.findings]
    draft.set(warnings=sum(finding.verdict == "warning" for _, finding in findings))
    for volume, finding in findings:
        if finding.verdict in {"warning", "failed"}:
            draft.note(f"{volume}: {finding.text}")
    if trouble is not None:
        text = f"the drill's record is on this machine only, not in store {repository.store.name}: {trouble}"
        draft.note(text)
        site.warn(text)
    return Drilled(record, repository.store.name, trouble)


def judge_drill(record: DrillRecord) -> None:
    """Raise what the record amounts to."""
    if record.outcome != "failed":
        return
    failures = record.failures
    damaged = [pair for pair in failures if pair[1].damage]
    volume, finding = (damaged or failures)[0]
    others = len(failures) - 1
    more = f" (and {others:,} more finding{'' if others == 1 else 's'})" if others else ""
    message = f"the drill of snapshot {record.snapshot[:8]} failed: {volume}: {finding.text}{more}"
    raise IntegrityError(message) if damaged else DrillFailed(message)


def _keep(site: Site, repository: Repository, record: DrillRecord) -> str | None:
    """Why the record is not with the snapshot, None if it is. What was found is shown in any case."""
    try:
        return keep_drill(repository, record, site.settings.state_dir)
    except BackupdError as exc:
        return str(exc)


def _spec(settings: Settings, name: str) -> VolumeSpec:
    return settings.volume_spec(name) if name in settings.volumes else VolumeSpec(name)


def _options(settings: Settings) -> OptionsOf:
    def options(name: str) -> DrillOptions:
        return settings.volumes[name].drill.options() if name in settings.volumes else DrillOptions()

    return options
