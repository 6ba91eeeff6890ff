"""What has become less since the drill before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from backupd.drill.probes import Results
from backupd.repository import DrillRecord, VolumeDrill

_KEYS = "keys"


def previous(records: Iterable[DrillRecord], volume: str, plan: str) -> VolumeDrill | None:
    """What the last drill found of a volume in which nothing was wrong with it; `records` are newest first."""
    for record in records:
        seen = record.volume(volume)
        if record.plan == plan and seen is not None and seen.outcome != "failed":
            return seen
    return None


def compare(before: VolumeDrill, counts: Mapping[str, int], largest_shrink: float) -> Results:
    """Warn of counts that have shrunk by more than a part of `largest_shrink`; all keys gone is a failure.

    Only what was counted both times is compared. A table, or anything else, that is not counted any more is named.
    """
    results = Results("comparison", before.moment.date().isoformat())
    shrunk = 0
    for name, was in before.counts.items():
        now = counts.get(name)
        if now is None:
            if ": " in name:
                results.warning(f"{name}: {was:,} in the drill before, not there now")
                shrunk += 1
            continue
        if now == 0 and was > 0 and name == _KEYS:
            results.failed(f"no keys at all, {was:,} in the drill before", damage=True)
            shrunk += 1
        elif was > 0 and (was - now) / was > largest_shrink:
            results.warning(f"{name}: {now:,}, {was:,} in the drill before")
            shrunk += 1
    if not shrunk:
        results.proven("nothing has shrunk much since the drill before")
    return results
