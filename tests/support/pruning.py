"""A repository with a history, for tests of prune, and what must hold of it at every moment."""

from __future__ import annotations

import atexit
import random
import subprocess
import tempfile
from collections.abc import Mapping
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from backupd.archive import ChunkerParameters
from backupd.model import FullEvery, KeepPolicy
from backupd.ports import Store
from backupd.prune.operation import Pruned, prune
from backupd.prune.outline import Outline, PruneRequest
from backupd.prune.rules import Rules
from backupd.repository import Repository, layout
from backupd.runtime import Runtime
from backupd.stores.memory import MemoryStore
from backupd.verify.verifier import Verifier
from tests.support.runtime import CountingIds, Place, RecordingProgress, TickingClock, stored

DAY = timedelta(days=1)
KEEP = KeepPolicy(last=2)
FULL_EVERY = FullEvery(3 * DAY)
# Small ones, so that little data make several chunks, and later archives point into earlier ones.
CHUNKER = ChunkerParameters(minimum=4096, average=16384, maximum=65536)


def rules(
    policy: KeepPolicy | None = KEEP, *, plan: str = "nightly", safety: timedelta = 14 * DAY, grace: timedelta = DAY
) -> Rules:
    return Rules({plan: (policy, "UTC")}, safety, grace)


def request(policy: KeepPolicy | None = KEEP, *ids: str) -> PruneRequest:
    return PruneRequest(rules(policy), ids=frozenset(ids))


def run_prune(
    place: Place, asked: PruneRequest | None = None, number: int = 0, outlines: list[Outline] | None = None
) -> Pruned:
    seen = [] if outlines is None else outlines
    return prune(place.repository(number), asked or request(), place.runtime, seen.append)


def another(place: Place, name: str = "elsewhere") -> Place:
    """Another host with the same volumes, stores and clock, but a state directory and ids of its own."""
    other = Place(place.base, stores=place.stores, names=place.names, full_every=place.full_every)
    other.clock = place.clock
    ids = CountingIds(prefix=len(name) << 20)
    other.runtime = _with(other, state=place.base / name, clock=place.clock, new_id=ids)
    return other


def _with(place: Place, **changes: Any) -> Runtime:
    return replace(place.runtime, **changes)


@cache
def _template(days: int) -> Place:
    """Made once a session: it takes a second."""
    base = tempfile.TemporaryDirectory()
    atexit.register(base.cleanup)
    return _made(Path(base.name), days)


def with_history(base: Path, days: int = 6) -> Place:
    """Two volumes, a snapshot a day, a full one every third day; among them one that lacks a volume. Small volumes."""
    template = _template(days)
    store, ids = template.stores[0], template.runtime.new_id
    assert isinstance(store, MemoryStore)
    assert isinstance(ids, CountingIds)
    base.mkdir(exist_ok=True)
    subprocess.run(["cp", "-a", f"{template.base}/.", base], check=True)
    clock = TickingClock(template.clock.time)
    own = MemoryStore("one", clock)
    own._objects.update(store._objects)
    place = Place(base, stores=[own], names=("a", "b"), full_every=FULL_EVERY)
    place.clock = clock
    place.runtime = _with(place, clock=clock, new_id=CountingIds(count=ids.count))
    return place


def _made(base: Path, days: int) -> Place:
    clock = TickingClock()
    place = Place(base, stores=[MemoryStore("one", clock)], names=("a", "b"), full_every=FULL_EVERY)
    place.clock = clock
    place.runtime = _with(place, clock=clock)
    Repository.open_or_create(place.stores[0], threads=2, now=clock.now(), new_id=place.runtime.new_id, chunker=CHUNKER)
    for number, name in enumerate(place.names):
        place.root(name).mkdir(parents=True)
        (place.root(name) / "first").write_bytes(random.Random(number).randbytes(60_000))
    for day in range(days):
        place.names = ("a",) if day == days - 2 else ("a", "b")
        a_day_later(place, day)
        place.backup()
    place.names = ("a", "b")
    clock.time += DAY
    return place


def a_day_later(place: Place, day: int) -> None:
    place.clock.time += DAY
    for name in place.names:
        (place.root(name) / f"of day {day}").write_bytes(random.Random(f"{day}{name}").randbytes(5_000))


def copied(store: Store, clock: TickingClock, content: Mapping[str, bytes] | None = None) -> MemoryStore:
    """A memory store of the same content, or of that content."""
    memory = MemoryStore(store.name, clock)
    for key, data in (stored(store) if content is None else content).items():
        memory.put(key, data)
    return memory


def check_all_that_is_listed(store: Store) -> list[str]:
    """Read every snapshot whole; the ids, newest first."""
    repository = Repository.open(store, threads=2)
    manifests, damaged = repository.snapshots()
    assert damaged == []
    verifier = Verifier(repository, RecordingProgress(), 1.0, random.Random(0))
    assert [finding for finding in verifier.verify(manifests) if finding.problem] == []
    return [manifest.id for manifest in manifests]


def unreferenced(store: Store) -> list[str]:
    """Keys that no snapshot needs; withdrawn ones are not among them, nor records of snapshots that are there."""
    manifests, _ = Repository.open(store, threads=2).snapshots()
    needed = {ref.key for manifest in manifests for archive in manifest.archives for ref in archive.objects}
    needed |= {layout.CONFIG} | {layout.snapshot(manifest.id) for manifest in manifests}
    ids = {manifest.id for manifest in manifests}
    return [
        key
        for key, data in stored(store).items()
        if key not in needed and data != layout.WITHDRAWN and layout.recorded_snapshot(key) not in ids
    ]
