"""What a store holds, and what of it goes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from msgspec import Struct, field
from msgspec.structs import replace

from backupd.errors import BackupdError
from backupd.model import ObjectInfo
from backupd.prune.locked import held_back, locked_keys
from backupd.prune.rules import Rules, Verdict, judge, named
from backupd.repository import Manifest, Repository, Standings, layout, proven, standings

_WITHDRAWN_FOR = timedelta(days=30)
"""How long a key stays taken from a holder who may yet wake up. Until then it costs 20 bytes."""

_LEASES_FOR = timedelta(days=1)


class PruneRequest(Struct, frozen=True):
    """What was asked for: what `rules` make superfluous, of one `plan` only if given; or the snapshots of these `ids`.

    The ids are whole.
    """

    rules: Rules
    plan: str | None = None
    ids: frozenset[str] = frozenset()

    @property
    def by_rules(self) -> bool:
        """Whether what it keeps is what all rules together want, and no more."""
        return self.plan is None and not self.ids


class Outline(Struct, frozen=True):
    """What goes and what stays, newest first.

    `unreadable` are the ids of manifests that can't be read, `damage` what is wrong with them; those of `dropped`
    were named, and go. `only_theirs` are objects that only snapshots which go have needed, `garbage` those that no
    snapshot refers to, past the grace period, and `leftovers` small things without a meaning. All are bytes by key,
    as the store lists them. `young` counts objects without a snapshot that are within the grace period. `standings`
    has what checks and drills have said of the snapshots.

    `locked` are the keys that would go, and until when the store's lock keeps them; `held` the ids of the snapshots
    that stay whole for that time, because something that only they need is locked.
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
    standings: Standings
    locked: Mapping[str, datetime] = field(default_factory=dict)
    held: Mapping[str, datetime] = field(default_factory=dict)

    @property
    def kept(self) -> list[Manifest]:
        """Snapshots that stay, newest first."""
        return [verdict.snapshot for verdict in self.verdicts if verdict.keep]

    @property
    def removed(self) -> list[Manifest]:
        """Snapshots that go, newest first."""
        return [
            verdict.snapshot for verdict in self.verdicts if not verdict.keep and verdict.snapshot.id not in self.held
        ]

    @property
    def waiting(self) -> list[Manifest]:
        """Snapshots that nobody wants, and that are locked; newest first."""
        return [verdict.snapshot for verdict in self.verdicts if verdict.snapshot.id in self.held]

    @property
    def lacks_something(self) -> bool:
        """Whether a manifest is gone or can't be read, or an object is gone that a snapshot needs."""
        listed = (verdict.snapshot for verdict in self.verdicts)
        return bool(self.damage) or not _needed(listed) <= self.sizes.keys()

    @property
    def nothing_goes(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.removed or self.dropped or self.garbage or self.leftovers)

    @property
    def freed(self) -> int:
        """Bytes that will be free, manifests left out."""
        return sum(self.only_theirs.values()) + sum(self.garbage.values())


def outline(
    repository: Repository, request: PruneRequest, now: datetime, store_now: datetime, state: Path | None = None
) -> Outline:
    """Look at everything that the store lists; nothing is changed. Memory: some 300 bytes an object.

    `store_now` is the time by the store's clock: the age of objects is judged by it, that of snapshots by `now`.
    Records of drills are looked for in the directory `state` as well.
    """
    ids = repository.snapshot_ids()
    manifests, damage = repository.snapshots()
    objects = {info.key: info for info in repository.store.list()}
    withdrawn = {id_ for id_ in ids if _is_withdrawn(objects.get(layout.snapshot(id_)))}
    unreadable = {id_ for id_ in ids - withdrawn - {found.id for found in manifests} if layout.snapshot(id_) in objects}
    good = proven(repository, state) if request.rules.ask_for_proven and not request.ids else ()
    known = standings(repository, filter(layout.recorded_snapshot, objects))
    verdicts = _verdicts(manifests, request, now, good, known)
    kept = _needed(verdict.snapshot for verdict in verdicts if verdict.keep)
    going = _needed(verdict.snapshot for verdict in verdicts if not verdict.keep) - kept
    strays = [info for key, info in objects.items() if layout.is_of_archive(key) and key not in kept | going]
    cutoff = store_now - request.rules.grace
    doomed = [verdict.snapshot for verdict in verdicts if not verdict.keep]
    garbage = {info.key: info.size for info in strays if _is_older(info, cutoff)}
    dropped = unreadable & request.ids
    staying = {verdict.snapshot.id for verdict in verdicts if verdict.keep} | (unreadable - dropped)
    leftovers = _leftovers(objects.values(), withdrawn, staying, cutoff, store_now)
    leftovers |= {key: objects[key].size for key in known.idle if key in objects}
    mine = {layout.snapshot(id_) for id_ in {manifest.id for manifest in doomed} | dropped}
    locked = locked_keys(repository.store, mine | (going & objects.keys()) | garbage.keys() | leftovers.keys())
    held = held_back(doomed, locked, kept)
    going -= _needed(manifest for manifest in doomed if manifest.id in held)
    return Outline(
        store=repository.store.name,
        verdicts=tuple(verdicts),
        unreadable=frozenset(unreadable),
        damage=tuple(damage),
        dropped=frozenset(id_ for id_ in dropped if layout.snapshot(id_) not in locked),
        sizes={key: info.size for key, info in objects.items()},
        only_theirs={key: objects[key].size for key in going if key in objects},
        garbage=_without(garbage, locked),
        leftovers={
            key: size for key, size in _without(leftovers, locked).items() if layout.recorded_snapshot(key) not in held
        },
        young=sum(not _is_older(info, cutoff) for info in strays),
        standings=known,
        locked=locked,
        held=held,
    )


def _leftovers(
    objects: Iterable[ObjectInfo], withdrawn: set[str], staying: set[str], cutoff: datetime, store_now: datetime
) -> dict[str, int]:
    """Small things that mean nothing any more."""
    found = {}
    for info in objects:
        key, limit = info.key, None
        if key.startswith(layout.PROBES):
            limit = cutoff
        elif layout.lease_of(key):  # those that hold are renewed all the time: released where deleting was denied
            limit = min(cutoff, store_now - _LEASES_FOR)
        elif layout.snapshot_id(key) in withdrawn:
            limit = store_now - _WITHDRAWN_FOR
        if (limit is not None and _is_older(info, limit)) or _is_of_no_snapshot(key, staying):
            found[key] = info.size
    return found


def _without(sizes: Mapping[str, int], locked: Mapping[str, datetime]) -> dict[str, int]:
    return {key: size for key, size in sizes.items() if key not in locked}


def _verdicts(
    manifests: Sequence[Manifest], request: PruneRequest, now: datetime, good: Collection[str], known: Standings
) -> list[Verdict]:
    if request.ids:
        return named(manifests, request.ids)
    verdicts = judge(manifests, request.rules, now, good, known.damaged)
    if request.plan is None:
        return verdicts
    return [
        verdict if verdict.snapshot.plan == request.plan else replace(verdict, keep=True, reasons=("of another plan",))
        for verdict in verdicts
    ]


def _needed(manifests: Iterable[Manifest]) -> set[str]:
    return {ref.key for manifest in manifests for archive in manifest.archives for ref in archive.objects}


def _is_of_no_snapshot(key: str, staying: set[str]) -> bool:
    """Whether it is a record of a snapshot that is no more, or goes. None is made of one that is yet to be."""
    recorded = layout.recorded_snapshot(key)
    return recorded is not None and recorded not in staying


def _is_withdrawn(info: ObjectInfo | None) -> bool:
    return info is not None and info.size == len(layout.WITHDRAWN)


def _is_older(info: ObjectInfo, cutoff: datetime) -> bool:
    """What the store gives no age has none that would do."""
    return info.modified is not None and info.modified < cutoff
