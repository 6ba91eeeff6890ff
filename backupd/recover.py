"""Recover: finishes or undoes what a killed process had begun."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from backupd.errors import BackupdError, LockedError, VolumeMissing
from backupd.journal import Journal, OpenAct
from backupd.lock import volume_lock
from backupd.model import Volume, VolumeSpec
from backupd.restore.swap import Holds, Swap
from backupd.runtime import Runtime


@dataclass(frozen=True, slots=True)
class Recovery:
    """What was found and what was done about it, in words."""

    subject: str
    outcome: str


def recover(runtime: Runtime, scan: Iterable[VolumeSpec] = ()) -> Sequence[Recovery]:
    """Make every volume wholly old or wholly new again; may be repeated. What a live process holds is left to it.

    The journal says where to look and what was decided; volumes of `scan` are looked into besides, for when the journal
    is lost. Acts of another engine wait for it. Helpers that a killed process left running are ended first: a swap must
    not have two hands on it. A volume that can't be recovered does not keep the others from it; its error comes last.
    """
    journal = Journal(runtime.state)
    acts = [act for act in journal.open_acts() if _is_at_home(act.act.volume, runtime)]
    volumes = _found(runtime, scan)
    if not acts and not volumes:
        return []
    done = [Recovery("leftover", text) for text in runtime.engine.remove_leftovers()]
    failed: BackupdError | None = None
    for work in (
        *(partial(_resume, runtime, journal, act) for act in acts),
        *(partial(_scan, runtime, v) for v in volumes),
    ):
        try:
            done += work()
        except LockedError:
            continue
        except BackupdError as exc:
            runtime.progress.note(f"not recovered: {exc}")
            failed = failed or exc
    if failed is not None:
        raise failed
    return done


def _is_at_home(volume: Volume, runtime: Runtime) -> bool:
    return (volume.kind == "directory") == (runtime.engine.name == "mounted")


def _resume(runtime: Runtime, journal: Journal, seen: OpenAct) -> list[Recovery]:
    act = seen.act
    with volume_lock(runtime.locks, act.volume):
        begun = next((begun for begun in journal.open_acts() if begun.number == seen.number), None)
        if begun is None:  # a live process has ended it meanwhile
            return []
        if runtime.engine.inspect(act.volume) is None:
            done = Recovery(str(act.volume), "the volume of an interrupted restore is gone")
        else:
            swap = Swap(runtime.engine, act.volume, act.swap)
            if begun.decided:
                done = _said(swap, swap.complete(keep_old=act.keep_old))
            else:
                swap.undo()
                done = _said(swap, "old")
        journal.end([begun.number])
    return [done]


def _scan(runtime: Runtime, volume: Volume) -> list[Recovery]:
    with volume_lock(runtime.locks, volume):
        swaps = [
            Swap(runtime.engine, volume, left) for left in Swap(runtime.engine, volume, "none").survey().interrupted
        ]
        return [_said(swap, swap.recover(keep_old=True)) for swap in swaps]


def _found(runtime: Runtime, scan: Iterable[VolumeSpec]) -> list[Volume]:
    volumes = []
    for spec in scan:
        try:
            volumes.append(runtime.engine.find(spec))
        except VolumeMissing:
            continue
    return volumes


def _said(swap: Swap, holds: Holds) -> Recovery:
    outcome = "finished, the restored data are in place" if holds == "new" else "undone, the old data are in place"
    return Recovery(str(swap.volume), f"interrupted restore of snapshot {swap.id.partition('-')[0]}: {outcome}")
