"""What a verification found, noted with the snapshot."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from backupd.errors import StoreDenied, StoreFull
from backupd.repository import CheckKind, CheckRecord, Manifest, Repository, VolumeCheck, keep_check, new_check_id
from backupd.runtime import Runtime
from backupd.verify.verifier import Finding


class Look(NamedTuple):
    """How a snapshot was looked at, and when that began."""

    started: datetime
    kind: CheckKind
    fraction: float = 0.0


def keep_findings(
    repository: Repository, manifest: Manifest, findings: Sequence[Finding], look: Look, runtime: Runtime
) -> CheckRecord:
    """Note the findings of all of a snapshot's volumes with it; where the store takes nothing, on this machine.

    Nothing that an encrypted snapshot hides is told: problems may name files.
    """
    sealed = manifest.encryption is not None
    record = CheckRecord(
        id=new_check_id(repository, manifest.id, look.started, runtime.new_id()),
        repository=repository.config.id,
        snapshot=manifest.id,
        time=look.started,
        finished=runtime.clock.now(),
        host="" if sealed else runtime.host,
        program=runtime.program,
        kind=look.kind,
        fraction=look.fraction,
        volumes=[
            VolumeCheck(
                volume=finding.volume,
                read=finding.read,
                problem="damaged" if sealed and finding.problem else finding.problem,
            )
            for finding in findings
        ],
    )
    try:
        kept_here = keep_check(repository, record)
    except (StoreDenied, StoreFull) as exc:
        kept_here = str(exc)
    if kept_here is not None:
        runtime.progress.note(f"the check of snapshot {manifest.short_id} is not noted in the store: {kept_here}")
    return record
