"""Counts of two drills."""

from __future__ import annotations

from datetime import timedelta

import pytest

from backupd.drill.compare import compare, previous
from backupd.repository import DrillOutcome, DrillRecord, VolumeDrill
from tests.support.runtime import BEGIN


def volume(counts: dict[str, int], outcome: DrillOutcome = "proven", name: str = "v") -> VolumeDrill:
    return VolumeDrill(volume=name, outcome=outcome, moment=BEGIN, restore_seconds=1, recovery_seconds=2, counts=counts)


@pytest.mark.parametrize(
    ("before", "now", "verdicts"),
    [
        ({"t: a": 100}, {"t: a": 51}, ["proven"]),
        ({"t: a": 100}, {"t: a": 49}, ["warning"]),
        ({"t: a": 100}, {"t: a": 0}, ["warning"]),
        ({"t: a": 100}, {}, ["warning"]),
        ({"t: a": 0}, {"t: a": 0}, ["proven"]),
        ({"keys": 10}, {"keys": 0}, ["failed"]),
        ({"keys": 10}, {"keys": 4}, ["warning"]),
        ({"keys": 10}, {}, ["proven"]),  # the service could not be asked, which is told elsewhere
        ({}, {"keys": 4}, ["proven"]),
        ({"files": 10, "bytes": 100}, {"files": 1, "bytes": 1}, ["warning", "warning"]),
    ],
)
def test_shrinking(before: dict[str, int], now: dict[str, int], verdicts: list[str]) -> None:
    found = compare(volume(before), now, 0.5).findings
    assert [finding.verdict for finding in found] == verdicts


def test_the_drill_to_compare_with() -> None:
    def record(number: int, plan: str, *volumes: VolumeDrill) -> DrillRecord:
        return DrillRecord(
            id=str(number), snapshot="s", plan=plan, time=BEGIN - timedelta(days=number), finished=BEGIN, host="h",
            program="p", engine="docker", outcome="proven", recovery_seconds=1, age_seconds=1, volumes=list(volumes),
        )  # fmt: skip

    records = [
        record(1, "nightly", volume({"a": 1}, "failed")),
        record(2, "weekly", volume({"a": 2})),
        record(3, "nightly", volume({"a": 3}, name="w")),
        record(4, "nightly", volume({"a": 4})),
    ]
    found = previous(records, "v", "nightly")
    assert found is not None
    assert found.counts == {"a": 4}
    assert previous(records, "nothing", "nightly") is None
