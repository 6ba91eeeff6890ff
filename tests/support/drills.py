"""Records of drills, made up."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from backupd.repository import DrillOutcome, DrillRecord, Finding, VolumeDrill
from tests.support.runtime import BEGIN

SNAPSHOT = "0123456789abcdef"


def record(number: int = 1, outcome: DrillOutcome = "proven", snapshot: str = SNAPSHOT, **rest: object) -> DrillRecord:
    time = BEGIN + timedelta(minutes=number)
    found = VolumeDrill(
        volume="v", outcome=outcome, moment=BEGIN, restore_seconds=1.5, recovery_seconds=2, counts={"t: a": 1},
        findings=[Finding(probe="p", subject="s", verdict="proven", text="t")],
    )  # fmt: skip
    values: dict[str, Any] = {"missing": [], **rest}
    return DrillRecord(
        id=f"{time:%Y%m%dT%H%M%SZ}-0000000{number}", snapshot=snapshot, plan="nightly", time=time, finished=time,
        host="h", program="p", engine="docker", outcome=outcome, recovery_seconds=2, age_seconds=3, volumes=[found],
        **values,
    )  # fmt: skip
