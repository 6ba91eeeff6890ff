"""Recover: finishes or undoes what a killed process had begun."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from backupd.errors import LockedError, VolumeMissing
from backupd.journal import Journal
from backupd.lock import volume_lock
from backupd.model import Volume, VolumeSpec
from backupd.restore.swap import Swap
from backupd.runtime import Runtime


@dataclass(frozen=True, slots=True)
class Recovery:
    """What was found and what was done about it, in words."""

    subject: str
    outcome: str


def recover(runtime: Runtime, scan: Iterable[VolumeSpec] = ()) -> Sequence[Recovery]:
    """Make every volume wholly old or wholly new again; may be repeated. What a live process holds is left to it.

    The journal says where to look; volumes of `scan` are looked into besides, for when the journal is lost. Helpers
    that a killed process left running are ended first: a swap must not have two hands on it.
    """
    journal = Journal(runtime.state)
    acts = journal.open_acts()
    volumes = _found(runtime, scan)
    if not acts and not volumes:
        return []
    done = [Recovery("leftover", text) for text in runtime.engine.remove_leftovers()]
    for number, act in acts:
        try:
            with volume_lock(runtime.locks, act.volume):
                if runtime.engine.inspect(act.volume) is None:
                    done.append(Recovery(str(act.volume), "the volume of an interrupted restore is gone"))
                else:
                    done.append(_recover(Swap(runtime.engine, act.volume, act.swap), keep_old=act.keep_old))
                journal.end([number])
        except LockedError:
            continue
    for volume in volumes:
        try:
            with volume_lock(runtime.locks, volume):
                for left in Swap(runtime.engine, volume, "none").survey().interrupted:
                    done.append(_recover(Swap(runtime.engine, volume, left), keep_old=True))
        except LockedError:
            continue
    return done


def _found(runtime: Runtime, scan: Iterable[VolumeSpec]) -> list[Volume]:
    volumes = []
    for spec in scan:
        try:
            volumes.append(runtime.engine.find(spec))
        except VolumeMissing:
            continue
    return volumes


def _recover(swap: Swap, *, keep_old: bool) -> Recovery:
    holds = swap.recover(keep_old=keep_old)
    outcome = "finished, the restored data are in place" if holds == "new" else "undone, the old data are in place"
    return Recovery(str(swap.volume), f"interrupted restore of snapshot {swap.id.partition('-')[0]}: {outcome}")
