"""What a store holds, and what of it goes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from backupd.errors import BackupdError
from backupd.model import ObjectInfo
from backupd.prune.rules import Rules, Verdict, judge, named
from backupd.repository import Manifest, Repository, layout

_WITHDRAWN_FOR = timedelta(days=30)
"""How long a key stays taken from a holder who may yet wake up. Until then it costs 20 bytes."""

_LEASES_FOR = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class PruneRequest:
    """What was asked for: what `rules` make superfluous, of one `plan` only if given; or the snapshots of these `ids`.

    The ids are whole.
    """

    rules: Rules
    plan: str | None = None
    ids: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Outline:
    """What goes and what stays, newest first.

    `unreadable` are the ids of manifests that can't be read, `damage` what is wrong with them; those of `dropped`
    were named, and go. `only_theirs` are objects that only snapshots which go have needed, `garbage` those that no
    snapshot refers to, past the grace period, and `leftovers` small things without a meaning. All are bytes by key,
    as the store lists them. `young` counts objects without a snapshot that are within the grace period.
    """

    store: str
    verdicts: tuple[Verdict, ...]
    unreadable: frozenset[str]
    damage: tuple[BackupdError, ...]
    dropped: frozenset[str]
    sizes: Mapping[str, int]
    only_theirs: Mapping[str, int]
    garbage: Mapping[str, int]
    leftovers: Mapping[str, int]
    young: int

    @property
    def kept(self) -> list[Manifest]:
        """Snapshots that stay, newest first."""
        return [verdict.snapshot for verdict in self.verdicts if verdict.keep]

    @property
    def removed(self) -> list[Manifest]:
        """Snapshots that go, newest first."""
        return [verdict.snapshot for verdict in self.verdicts if not verdict.keep]

    @property
    def nothing_goes(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.removed or self.dropped or self.garbage or self.leftovers)

    @property
    def freed(self) -> int:
        """Bytes that will be free, manifests left out."""
        return sum(self.only_theirs.values()) + sum(self.garbage.values())


def outline(repository: Repository, request: PruneRequest, now: datetime, store_now: datetime) -> Outline:
    """Look at everything that the store lists; nothing is changed. Memory: some 300 bytes an object.

    `store_now` is the time by the store's clock: the age of objects is judged by it, that of snapshots by `now`.
    """
    ids = repository.snapshot_ids()
    manifests, damage = repository.snapshots()
    objects = {info.key: info for info in repository.store.list()}
    withdrawn = {id_ for id_ in ids if _is_withdrawn(objects.get(layout.snapshot(id_)))}
    unreadable = {id_ for id_ in ids - withdrawn - {found.id for found in manifests} if layout.snapshot(id_) in objects}
    verdicts = _verdicts(manifests, request, now)
    kept = _needed(verdict.snapshot for verdict in verdicts if verdict.keep)
    going = _needed(verdict.snapshot for verdict in verdicts if not verdict.keep) - kept
    strays = [info for key, info in objects.items() if layout.is_of_archive(key) and key not in kept | going]
    cutoff = store_now - request.rules.grace
    leftovers = [info for key, info in objects.items() if key.startswith(layout.PROBES) and _is_older(info, cutoff)]
    # Those that hold are renewed all the time: these were released where deleting was denied.
    leases = [info for key, info in objects.items() if layout.lease_of(key)]
    leftovers += [info for info in leases if _is_older(info, min(cutoff, store_now - _LEASES_FOR))]
    leftovers += [
        info for id_ in withdrawn if _is_older(info := objects[layout.snapshot(id_)], store_now - _WITHDRAWN_FOR)
    ]
    staying = {verdict.snapshot.id for verdict in verdicts if verdict.keep} | (unreadable - request.ids)
    leftovers += [info for key, info in objects.items() if _is_of_no_snapshot(key, staying)]
    return Outline(
        store=repository.store.name,
        verdicts=tuple(verdicts),
        unreadable=frozenset(unreadable),
        damage=tuple(damage),
        dropped=frozenset(unreadable & request.ids),
        sizes={key: info.size for key, info in objects.items()},
        only_theirs={key: objects[key].size for key in going if key in objects},
        garbage={info.key: info.size for info in strays if _is_older(info, cutoff)},
        leftovers={info.key: info.size for info in leftovers},
        young=sum(not _is_older(info, cutoff) for info in strays),
    )


def _verdicts(manifests: Sequence[Manifest], request: PruneRequest, now: datetime) -> list[Verdict]:
    if request.ids:
        return named(manifests, request.ids)
    verdicts = judge(manifests, request.rules, now)
    if request.plan is None:
        return verdicts
    return [
        verdict if verdict.snapshot.plan == request.plan else replace(verdict, keep=True, reasons=("of another plan",))
        for verdict in verdicts
    ]


def _needed(manifests: Iterable[Manifest]) -> set[str]:
    return {ref.key for manifest in manifests for archive in manifest.archives for ref in archive.objects}


def _is_of_no_snapshot(key: str, staying: set[str]) -> bool:
    """Whether it is the record of a drill whose snapshot is no more, or goes. None is made of one that is yet to be."""
    drilled = layout.drilled_snapshot(key)
    return drilled is not None and drilled not in staying


def _is_withdrawn(info: ObjectInfo | None) -> bool:
    return info is not None and info.size == len(layout.WITHDRAWN)


def _is_older(info: ObjectInfo, cutoff: datetime) -> bool:
    """What the store gives no age has none that would do."""
    return info.modified is not None and info.modified < cutoff
