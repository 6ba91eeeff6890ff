"""What a drill found, as it is kept with its snapshot (docs/FORMAT.md)."""

from __future__ import annotations

from typing import Literal

import msgspec

from backupd.model import AwareTime, require_possible

Verdict = Literal["proven", "failed", "warning", "skipped"]
DrillOutcome = Literal["proven", "files", "failed"]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What one probe says. `damage`: the data are not as they should be, rather than a service that will not start."""

    probe: str
    subject: str
    verdict: Verdict
    text: str
    damage: bool = False


class ServiceDrill(msgspec.Struct, frozen=True, kw_only=True):
    """A service of which a copy was started. `ready_seconds` from its start until it was healthy, None if it never was.

    `notes` say in what the copy differed from the original.
    """

    name: str
    image: str
    image_id: str
    ready_seconds: float | None
    notes: list[str] = []


class VolumeDrill(msgspec.Struct, frozen=True, kw_only=True):
    """One volume in a drill.

    `moment` is when its data were read, `counts` what was counted (rows by table, keys, files, bytes), for comparison
    with other drills. `recovery_seconds` is how long a restore of it takes, with its services until they are healthy.
    """

    volume: str
    outcome: DrillOutcome
    moment: AwareTime
    restore_seconds: float
    recovery_seconds: float
    counts: dict[str, int] = {}
    services: list[ServiceDrill] = []
    findings: list[Finding] = []


class DrillRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A drill of a snapshot. `missing` are the snapshot's volumes that were not asked for.

    `outcome` is `proven` if services ran on what was restored and nothing was found wrong, `files` if there were none
    to start, `failed` if anything was wrong. `recovery_seconds` covers all its volumes, one after the other.
    """

    format: int = 1
    id: str
    snapshot: str
    plan: str
    time: AwareTime
    finished: AwareTime
    host: str
    program: str
    engine: str
    outcome: DrillOutcome
    recovery_seconds: float
    age_seconds: float
    volumes: list[VolumeDrill]
    missing: list[str] = []

    def __post_init__(self) -> None:
        require_possible(self.time, self.finished)

    @property
    def good(self) -> bool:
        """Whether the whole snapshot was drilled and nothing was wrong with it."""
        return self.outcome != "failed" and not self.missing

    @property
    def failures(self) -> list[tuple[str, Finding]]:
        """What failed, by volume."""
        return [
            (volume.volume, finding)
            for volume in self.volumes
            for finding in volume.findings
            if finding.verdict == "failed"
        ]

    def volume(self, name: str) -> VolumeDrill | None:
        """What was found of a volume."""
        return next((volume for volume in self.volumes if volume.volume == name), None)
