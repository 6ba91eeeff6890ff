"""What is served: of the daemon, of the stores, of the history."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

from msgspec import Struct, field

from backupd.history import History
from backupd.notify.alerts import Raised
from backupd.notify.conditions import Space
from backupd.repository import DrillRecord, Manifest, Standing
from backupd.status import StatusSource


class PlanFacts(Struct, frozen=True):
    """A plan as configured. `max_age`: how old its last success may become."""

    name: str
    volumes: tuple[str, ...]
    stores: tuple[str, ...]
    schedule: str | None
    timezone: str
    max_age: timedelta | None = None


class StoreContent(Struct, frozen=True):
    """What a store held at `time`: snapshots newest first, how each stands by its records, objects and their bytes.

    `marks` are the keys that it was read from, `machine` is this one's public key at that time, None before it had one.
    """

    time: datetime
    manifests: Sequence[Manifest] = ()
    standings: Mapping[str, Standing] = field(default_factory=dict)
    objects: int = 0
    size_bytes: int = 0
    damaged: int = 0
    marks: frozenset[str] = frozenset()
    machine: str | None = None

    def standing(self, snapshot_id: str) -> Standing:
        """Of any snapshot."""
        return self.standings.get(snapshot_id, Standing())

    @property
    def drills(self) -> list[DrillRecord]:
        """The newest drill of each snapshot, oldest first."""
        found = [standing.drill for standing in self.standings.values() if standing.drill is not None]
        return sorted(found, key=lambda drill: drill.time)


class StoreState(Struct, frozen=True):
    """The last look that worked, and what went wrong with a later one."""

    content: StoreContent | None = None
    error: str | None = None


class Sources(Struct, frozen=True):
    """All that is served. What `stores`, `alerts`, `spaces` and `deliveries` return is at hand: none of them waits.

    `deliveries` counts by receiver and outcome, `spaces` is free space by place.
    """

    plans: Sequence[PlanFacts]
    history: History
    daemon: StatusSource
    stores: Callable[[], Mapping[str, StoreState]]
    alerts: Callable[[], Mapping[str, Raised]]
    spaces: Callable[[], Mapping[str, Space | None]]
    deliveries: Callable[[], Mapping[tuple[str, str], int]]
    version: str
