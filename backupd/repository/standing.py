"""What checks and drills together say of a snapshot in a store: good, unverified or damaged. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from msgspec import Struct, field

from backupd.repository.checkrecord import CheckRecord
from backupd.repository.drillrecord import DrillRecord

State = Literal["good", "unverified", "damaged"]


class Standing(Struct, frozen=True):
    """The state, and what it comes from: `check`, the drill, both or neither.

    `damaged` has the check that speaks against a volume, by the volume's name.
    """

    state: State = "unverified"
    check: CheckRecord | None = None
    drill: DrillRecord | None = None
    damaged: Mapping[str, CheckRecord] = field(default_factory=dict)

    @property
    def problem(self) -> str | None:
        """What is wrong, in words."""
        for volume, check in self.damaged.items():
            return next(f"{volume}: {found.problem}" for found in check.volumes if found.volume == volume)
        return None


def standing(checks: Iterable[CheckRecord], drill: DrillRecord | None = None) -> Standing:
    """What a snapshot's checks and its last drill come to.

    Damage stays until something has looked at least as closely and found none: a check that read all of it, or a drill
    that restored the volume and was content; what sizes told, any later check. A part drawn at random lifts nothing.
    """
    ordered = in_order(checks)
    damaged: dict[str, CheckRecord] = {}
    for check in ordered:
        if drill is None or check.id <= drill.id:
            _weigh(check, damaged)
    if drill is not None:
        for volume in drill.volumes:
            if volume.outcome != "failed":
                damaged.pop(volume.volume, None)
        for check in ordered:
            if check.id > drill.id:
                _weigh(check, damaged)
    if damaged:
        return Standing("damaged", next(iter(damaged.values())), drill, damaged)
    best = _closest(ordered)
    proven = drill is not None and drill.good
    return Standing("good" if best or proven else "unverified", best, drill)


def _weigh(check: CheckRecord, damaged: dict[str, CheckRecord]) -> None:
    """Add what a check found to what those before it did."""
    for found in check.volumes:
        before = damaged.get(found.volume)
        if before is not None and before.kind != "sizes" and not check.full:
            continue  # it has not looked as closely
        if found.problem is not None:
            damaged[found.volume] = check
        else:
            damaged.pop(found.volume, None)


def superseded(checks: Iterable[CheckRecord], drill: DrillRecord | None = None) -> list[CheckRecord]:
    """Records without which the standing is the same, now and after every later check."""
    ordered = in_order(checks)
    found = standing(ordered, drill)
    kept = {check.id for check in (*ordered[-1:], *found.damaged.values(), *filter(None, [_closest(ordered)]))}
    return [check for check in ordered if check.id not in kept]


def in_order(checks: Iterable[CheckRecord]) -> Sequence[CheckRecord]:
    """Oldest first, by their ids: a later check has a later one, even if a clock was set back in between."""
    return sorted(checks, key=lambda check: check.id)


def _closest(ordered: Sequence[CheckRecord]) -> CheckRecord | None:
    """The good one that read most; of several the last."""
    good = [check for check in ordered if check.good]
    return max(good, key=lambda check: (check.full, check.fraction, check.id), default=None)
