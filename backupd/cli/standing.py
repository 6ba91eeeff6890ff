"""What is known of a snapshot's state, for people and programs."""

from __future__ import annotations

from typing import Any

from backupd.repository import Standing


def standing_words(standing: Standing) -> str:
    """`good, all data 2026-11-24`, `unverified`, `DAMAGED, 5% of data 2026-11-24`."""
    state = "DAMAGED" if standing.state == "damaged" else standing.state
    if standing.check is not None:
        return f"{state}, {standing.check.how} {standing.check.time.astimezone():%Y-%m-%d}"
    return f"{state}, by its drill" if standing.state == "good" else state


def standing_facts(standing: Standing) -> dict[str, Any]:
    """The same, for programs."""
    check = standing.check
    facts: dict[str, Any] = {"state": standing.state, "problem": standing.problem, "damaged": sorted(standing.damaged)}
    if check is not None:
        facts |= {"id": check.id, "kind": check.kind, "percent": check.fraction * 100, "time": check.time}
    return facts
