"""Orders: runs that are to take place, and what of them stands in the way of others. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from backupd.agenda import called
from backupd.history import RunKind, Trigger
from backupd.records import Discreet
from backupd.settings import Settings
from backupd.settings.schedules import Overlap


class Order(Discreet, frozen=True, eq=False):
    """A run with the configuration that it was ordered under. `since` is when that was.

    Two orders can't be carried out at one time if one has exclusively what the other has at all.
    """

    _hidden: ClassVar = ("settings",)

    kind: RunKind
    plan: str | None
    trigger: Trigger
    overlap: Overlap
    since: datetime
    settings: Settings
    exclusive: frozenset[str] = frozenset()
    shared: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return called(self.kind, self.plan)

    def in_the_way(self, other: Order) -> str | None:
        """What both want, if it can't be had by both."""
        common = self.exclusive & (other.exclusive | other.shared) | other.exclusive & self.shared
        return min(common, default=None)


def make_order(
    kind: RunKind, plan: str | None, trigger: Trigger, overlap: Overlap, since: datetime, settings: Settings
) -> Order:
    """An order with its claims.

    A backup has its volumes; several may write to a store. Prune has all stores, so that what is verified, drilled or
    written meanwhile does not vanish. There is room and memory for one drill at a time.
    """
    exclusive, shared = {called(kind, plan)}, set[str]()
    if plan is None:
        exclusive |= {f"store {name}" for name in settings.stores}
    else:
        shared |= {f"store {name}" for name in settings.plans[plan].stores}
    if plan is not None and kind == "backup":
        specs = [settings.volume_spec(name) for name in settings.plans[plan].volumes]
        exclusive |= {f"volume {spec.volume or spec.path}" for spec in specs}
    if kind == "drill":
        exclusive.add("place for a drill")
    return Order(kind, plan, trigger, overlap, since, settings, frozenset(exclusive), frozenset(shared))
