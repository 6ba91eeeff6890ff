"""A repair is killed at every operation of the store that it mends, or that store fails there.

Whatever could be read of the two stores together can be read afterwards, and the next repair mends it all.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from backupd.errors import BackupdError, StoreUnavailable
from backupd.ports import Store
from backupd.repository import Elsewhere, Repository, layout
from backupd.verify.operation import verify
from backupd.verify.result import VerifyRequest
from tests.support.faulty_store import Crash, FaultyStore
from tests.support.pruning import copied
from tests.support.runtime import Place, put, stored
from tests.support.two_stores import two_stores

REPAIR = VerifyRequest(fraction=1.0, repair=True)

# Name, error, whether the operation was carried out all the same, and at every how many. Killed before an operation is
# killed after the one before.
KINDS: tuple[tuple[str, Callable[[], BaseException], bool, int], ...] = (
    ("killed", Crash, True, 1),
    ("away before", lambda: StoreUnavailable("away"), False, 4),
    ("away after", lambda: StoreUnavailable("away, but it was done"), True, 3),
)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return two_stores(tmp_path, 60_000)


def damage(store: Store, manifests: list[str], keys: list[str]) -> None:
    """One object flipped, one cut, one gone, and a manifest."""
    data = store.read(keys[0])
    put(store, keys[0], data[:500] + bytes([data[500] ^ 1]) + data[501:])
    put(store, keys[1], store.read(keys[1])[:-1])
    store.delete(keys[2])
    put(store, manifests[0], store.read(manifests[0])[:-9])


def streams(one: Store, two: Store) -> dict[str, bytes]:
    """What a restore brings back of each snapshot, with both stores."""
    found = {}
    for first, second in ((one, two), (two, one)):
        repository = Repository.open(first, threads=2)
        helped = repository.helped_by(Elsewhere({second.name: lambda second=second: second}, lambda _: None))  # type: ignore[misc]
        for manifest in repository.snapshots()[0]:
            found[manifest.id] = b"".join(helped.tar(manifest.archives[0]))
    return found


@pytest.mark.parametrize("kind", KINDS, ids=[kind[0] for kind in KINDS])
def test_at_every_operation(place: Place, kind: tuple[str, Callable[[], BaseException], bool, int]) -> None:
    _, error, after, step = kind
    whole, two = stored(place.stores[0]), place.stores[1]
    newest, oldest = place.repository().snapshots()[0]
    expected = streams(place.stores[0], two)
    keys = [oldest.archives[0].needs[0].key, oldest.archives[0].index.key, newest.archives[0].needs[0].key]
    stops = 0
    for number in range(1, 400, step):
        memory = copied(place.stores[0], place.clock, whole)
        damage(memory, [layout.snapshot(newest.id)], keys)
        hurt = {layout.snapshot(newest.id), *keys}
        faulty = FaultyStore(memory)
        faulty.fail_at(number, error())
        faulty.after, faulty.stays_broken = after, error is Crash
        with suppress(BackupdError, Crash):
            verify([faulty, two], REPAIR, place.runtime, random.Random(1))
        failed = faulty.failed
        faulty.mend()
        now = stored(memory)
        for key, data in whole.items():
            assert now.get(key) == data or key in hurt, "what was whole is whole"
        assert streams(memory, two) == expected
        place.runtime.leases(memory).release_dead()
        verify([memory, two], REPAIR, place.runtime, random.Random(1)).require_good()
        now = stored(memory)
        assert {key: data for key, data in now.items() if layout.recorded_snapshot(key) is None} == whole
        if not failed:
            break
        stops += 1
    else:
        pytest.fail("it never came to an end")
    assert stops > 60 // step
    print(f"{stops} stops")
