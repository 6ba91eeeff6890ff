"""Drill: a snapshot restored into a sandbox, where copies of its services are started and asked questions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime

from msgspec import Struct

from backupd.browse import archive_of
from backupd.drill.compare import compare, previous
from backupd.drill.options import DrillOptions
from backupd.drill.probes import Results
from backupd.drill.rehearsal import Cast, Rehearsal, Rehearsed, cast
from backupd.drill.scratch import Scratch, check_databases, refuse_too_little_room, restore_into
from backupd.errors import EngineUnavailable, IntegrityError, SourceError, VolumeMissing
from backupd.journal import DrillAct, Journal
from backupd.lock import drill_lock
from backupd.model import Volume, VolumeSpec
from backupd.repository import (
    Archive,
    DrillOutcome,
    DrillRecord,
    Finding,
    Manifest,
    Repository,
    VolumeDrill,
    last_drills,
    newest_first,
)
from backupd.restore.target import tar_notes
from backupd.runtime import Runtime
from backupd.sandbox import Sandbox, drill_directory, remove_directory

OptionsOf = Callable[[str], DrillOptions]


class DrillRequest(Struct, frozen=True):
    """What is to be drilled: these volumes of the snapshot, all of them if there are none named.

    `spec` and `options` tell what the configuration says of a volume; of one that is not in it any more, the defaults.
    """

    volumes: tuple[str, ...]
    spec: Callable[[str], VolumeSpec]
    options: OptionsOf


def new_drill_id(now: datetime, new_id: Callable[[], str]) -> str:
    """Ids sort by time."""
    return f"{now:%Y%m%dT%H%M%SZ}-{new_id()[:8]}"


def drill(request: DrillRequest, manifest: Manifest, repository: Repository, runtime: Runtime) -> DrillRecord:
    """Restore, start, ask; everything that was put up is gone when this returns or raises.

    What is wrong with the snapshot is in the record. Errors are raised for what keeps the drill from taking place:
    a volume that the snapshot lacks, an engine or a store that does not answer, too little room.
    """
    repository = repository.helped_by(None)  # what is proven is the copy in this store
    archives = _chosen(request, manifest)
    before = newest_first(last_drills(repository, runtime.state).records.values())
    began = runtime.clock.now()
    number = new_drill_id(began, runtime.new_id)
    with _sandbox(number, runtime) as sandbox:
        scratches = [
            Scratch(
                archive=archive,
                spec=request.spec(archive.volume),
                options=request.options(archive.volume),
                volume=sandbox.volume(archive.volume),
                source=_source(archive, request, runtime),
            )
            for archive in archives
        ]
        refuse_too_little_room(scratches, runtime)
        restored = [scratch for scratch in scratches if _restored(scratch, repository, runtime)]
        directory = drill_directory(runtime.state, number)
        databases = {s.archive.volume: check_databases(s, repository, sandbox, directory) for s in restored}
        known = {name: count for s in scratches for name, count in _known(before, s, manifest).items()}
        players = cast(restored, runtime)
        taken = {scratch.source.source: scratch.volume for scratch in restored}
        rehearsal = Rehearsal(sandbox, repository, runtime, taken)
        played = [rehearsal.run(service, used, known) for service, used in players.parts]
    volumes = []
    for scratch in scratches:
        found = [scratch.files, *filter(None, [databases.get(scratch.archive.volume)])]
        found += [_absence(players, scratch)] if scratch in restored else []
        volumes.append(_volume_drill(scratch, found, played, _before(before, scratch, manifest)))
    return _record(number, began, volumes, manifest, runtime)


def _chosen(request: DrillRequest, manifest: Manifest) -> list[Archive]:
    names = dict.fromkeys(request.volumes) or [archive.volume for archive in manifest.archives]
    return [archive_of(manifest, name) for name in names]


def _source(archive: Archive, request: DrillRequest, runtime: Runtime) -> Volume:
    """The volume that services use today: the configured one, else the one that was backed up."""
    spec = request.spec(archive.volume)
    try:
        return runtime.engine.find(spec) if spec.volume or spec.path else archive.source
    except VolumeMissing:
        return archive.source


@contextmanager
def _sandbox(number: str, runtime: Runtime) -> Iterator[Sandbox]:
    """A sandbox of which `recover` knows, from before the first thing in it until after the last."""
    directory = drill_directory(runtime.state, number)
    with drill_lock(runtime.locks, number):
        journal = Journal(runtime.state)
        act = journal.begin(DrillAct(drill=number, engine=runtime.engine.name), runtime.clock.now())
        sandbox = runtime.engine.sandbox(number, directory)
        try:
            directory.mkdir(mode=0o700, parents=True)
            yield sandbox
        finally:
            sandbox.close()
            remove_directory(directory)
            journal.end([act])


def _restored(scratch: Scratch, repository: Repository, runtime: Runtime) -> bool:
    """Restore one volume; damage in the repository is what a drill is to find, and does not end it."""
    try:
        for note in tar_notes(scratch.archive, runtime.engine):
            scratch.files.warning(note)
        repository.check(scratch.archive.objects)
        restore_into(scratch, repository, runtime)
    except IntegrityError as exc:
        scratch.files.failed(str(exc), damage=True)
        return False
    except EngineUnavailable:
        raise
    except SourceError as exc:
        scratch.files.failed(str(exc))
        return False
    return True


def _known(before: Sequence[DrillRecord], scratch: Scratch, manifest: Manifest) -> Mapping[str, int]:
    seen = _before(before, scratch, manifest)
    return seen.counts if seen else {}


def _before(before: Sequence[DrillRecord], scratch: Scratch, manifest: Manifest) -> VolumeDrill | None:
    return previous(before, scratch.archive.volume, manifest.plan)


def _absence(players: Cast, scratch: Scratch) -> Results:
    """Says so where no service was started, rather than to let files pass for a proof."""
    results = Results("start", "services")
    if why := players.absent.get(scratch.archive.volume):
        tell = results.failed if scratch.options.services and scratch.options.start else results.skipped
        tell(f"no service was started on it: {why}")
    return results


def _not_run(scratch: Scratch, played: Sequence[Rehearsed]) -> Results:
    """Says of which checks nothing is known, for there was no copy to run them in."""
    results = Results("check", "services")
    asked = {name for rehearsed in played if rehearsed.asked for name in rehearsed.names}
    for check in scratch.options.checks:
        if not asked or (check.service is not None and check.service not in asked):
            results.skipped(f"`{' '.join(check.command)}` was not run: there was no copy to run it in")
    return results


def _volume_drill(
    scratch: Scratch, found: Sequence[Results], played: Sequence[Rehearsed], before: VolumeDrill | None
) -> VolumeDrill:
    name = scratch.archive.volume
    mine = [rehearsed for rehearsed in played if name in rehearsed.volumes]
    results = [*found, *(result for rehearsed in mine for result in rehearsed.results), _not_run(scratch, mine)]
    counts = {key: count for result in results for key, count in result.counts.items()}
    if before is not None and counts:
        results.append(compare(before, counts, scratch.options.largest_shrink))
    findings = [finding for result in results for finding in result.findings]
    ready = [rehearsed.drilled.ready_seconds or 0.0 for rehearsed in mine]
    return VolumeDrill(
        volume=name,
        outcome=_outcome(findings, started=bool(mine)),
        moment=scratch.archive.moment or scratch.archive.started,
        restore_seconds=round(scratch.seconds, 3),
        recovery_seconds=round(scratch.seconds + sum(ready), 3),
        counts=counts,
        services=[rehearsed.drilled for rehearsed in mine],
        findings=findings,
    )


def _outcome(findings: Sequence[Finding], *, started: bool) -> DrillOutcome:
    if any(finding.verdict == "failed" for finding in findings):
        return "failed"
    return "proven" if started else "files"


def _record(
    number: str, began: datetime, volumes: list[VolumeDrill], manifest: Manifest, runtime: Runtime
) -> DrillRecord:
    outcomes = {volume.outcome for volume in volumes}
    drilled = {volume.volume for volume in volumes}
    services = {service.name: service for volume in volumes for service in volume.services}
    oldest = min((volume.moment for volume in volumes), default=manifest.time)
    return DrillRecord(
        id=number,
        snapshot=manifest.id,
        plan=manifest.plan,
        time=began,
        finished=runtime.clock.now(),
        host=runtime.host,
        program=runtime.program,
        engine=runtime.engine.name,
        outcome=next((outcome for outcome in ("failed", "proven") if outcome in outcomes), "files"),
        recovery_seconds=round(
            sum(volume.restore_seconds for volume in volumes)
            + sum(service.ready_seconds or 0.0 for service in services.values()),
            3,
        ),
        age_seconds=round((began - oldest).total_seconds(), 3),
        volumes=volumes,
        missing=[archive.volume for archive in manifest.archives if archive.volume not in drilled],
    )
