"""Leases: who may hold one beside whom, how they end, and what a holder learns who stood still."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from backupd.errors import LeaseLost, LockedError, SnapshotNotFound, StoreDenied, StoreError
from backupd.lease import DURATION, Leases
from backupd.lease import lease as lease_module
from backupd.lease import leases as leases_module
from backupd.repository import layout
from backupd.stores.memory import MemoryStore
from tests.support.runtime import CountingIds, Place, RecordingProgress, TickingClock, make_runtime, stored


@pytest.fixture
def clock() -> TickingClock:
    return TickingClock()


@pytest.fixture
def store(clock: TickingClock) -> MemoryStore:
    return MemoryStore("one", clock)


def a_host(store: MemoryStore, base: Path, name: str, clock: TickingClock) -> Leases:
    runtime = replace(make_runtime(base / name, clock=clock), host=name, new_id=CountingIds(prefix=len(name) << 16))
    return runtime.leases(store)


@pytest.fixture
def here(store: MemoryStore, tmp_path: Path, clock: TickingClock) -> Leases:
    return a_host(store, tmp_path, "here", clock)


@pytest.fixture
def there(store: MemoryStore, tmp_path: Path, clock: TickingClock) -> Leases:
    return a_host(store, tmp_path, "there", clock)


def test_shared_ones_tolerate_each_other(here: Leases, there: Leases, store: MemoryStore) -> None:
    with here.shared("backup") as one, there.shared("backup") as two:
        one.confirm()
        two.confirm()
        assert len(list(store.list("leases/"))) == 2
    assert stored(store) == {}
    assert list(here.directory.iterdir()) == []


@pytest.mark.parametrize(("first", "second"), [("shared", "exclusive"), ("exclusive", "shared"), ("exclusive",) * 2])
def test_an_exclusive_one_tolerates_none(
    here: Leases, there: Leases, store: MemoryStore, first: str, second: str
) -> None:
    with getattr(here, first)("the first") as held:
        with pytest.raises(LockedError) as refused, getattr(there, second)("the second"):
            pytest.fail("not locked")
        assert str(refused.value).startswith("store one is in use: the first by backupd test on here (process ")
        assert "at least until 02:15:" in str(refused.value)
        assert refused.value.exit_code == 11
        held.confirm()
        assert [layout.lease_of(key)[0] for key in stored(store)] == [held.id]  # type: ignore[index]
    with getattr(there, second)("now"):
        pass


def test_one_waits_for_the_other(here: Leases, there: Leases, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases_module, "_POLL_SECONDS", 0.01)
    patient = replace(there, wait=timedelta(hours=1))
    entered = threading.Event()

    def wait() -> None:
        with patient.exclusive("prune"):
            entered.set()

    thread = threading.Thread(target=wait)
    with here.shared("backup"):
        thread.start()
        assert not entered.wait(0.3)
    assert entered.wait(10)
    thread.join()
    progress = there.progress
    assert isinstance(progress, RecordingProgress)
    assert len(progress.notes) == 1
    assert progress.notes[0].startswith("waiting: store one is in use: backup by")


def test_one_that_runs_out_is_taken_away_and_its_holder_learns_of_it(
    here: Leases, there: Leases, clock: TickingClock, store: MemoryStore
) -> None:
    with here.shared("backup") as lease:
        clock.time += DURATION + timedelta(minutes=1)
        with there.exclusive("prune"):
            assert stored(store)[layout.snapshot(lease.id)] == layout.WITHDRAWN
            with pytest.raises(LeaseLost, match="stood still"):
                lease.renew()
        for ask in (lease.confirm, lease.require, lease.renew):
            with pytest.raises(LeaseLost):
                ask()
    assert [key for key in stored(store) if key.startswith("leases/")] == []


def test_an_exclusive_one_is_given_as_long_again(here: Leases, there: Leases, clock: TickingClock) -> None:
    with here.exclusive("prune") as lease:
        clock.time += 2 * DURATION - timedelta(minutes=1)
        with pytest.raises(LockedError), there.shared("backup"):
            pass
        clock.time += timedelta(minutes=2)
        with there.shared("backup"):
            pass
        with pytest.raises(LeaseLost):
            lease.require()


def test_one_that_is_overdue_but_was_left_alone_goes_on_if_shared(here: Leases, clock: TickingClock) -> None:
    with here.shared("backup") as lease:
        clock.time += 10 * DURATION
        lease.require()
        lease.confirm()
    with here.exclusive("prune") as lease:
        clock.time += 10 * DURATION
        with pytest.raises(LeaseLost):
            lease.require()


def test_renewal_leaves_one_object(here: Leases, there: Leases, store: MemoryStore, clock: TickingClock) -> None:
    with here.shared("backup") as lease:
        for _ in range(5):
            clock.time += DURATION / 2
            lease.renew()
            assert [layout.lease_of(key)[0] for key in stored(store)] == [lease.id]  # type: ignore[index]
        with pytest.raises(LockedError), there.exclusive("prune"):
            pass


def test_it_is_renewed_in_the_background(here: Leases, store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "_RENEWED_EVERY", timedelta(milliseconds=10))
    with here.shared("backup") as lease:
        first = set(stored(store))
        for _ in range(500):
            if not first & set(stored(store)):
                break
            threading.Event().wait(0.01)
        else:
            pytest.fail("never renewed")
        lease.confirm()
    assert stored(store) == {}


def test_clocks_of_hosts_do_not_matter(store: MemoryStore, here: Leases, tmp_path: Path) -> None:
    ahead = TickingClock()
    ahead.time += timedelta(days=365)
    hasty = a_host(store, tmp_path, "hasty", ahead)
    with here.shared("backup") as lease:
        with pytest.raises(LockedError), hasty.exclusive("prune"):
            pass
        lease.confirm()
    behind = TickingClock()
    behind.time -= timedelta(days=365)
    slow = a_host(store, tmp_path, "slowly", behind)
    with slow.exclusive("prune") as lease:
        with pytest.raises(LockedError), here.shared("backup"):
            pass
        lease.confirm()


def test_that_of_a_dead_process_of_this_machine_is_nobodys(here: Leases, there: Leases, store: MemoryStore) -> None:
    lease_key = layout.lease("00000000dead0000", 0)
    with there.shared("backup") as lease:
        (document,) = stored(store).values()
        lease.confirm()
    store.put(lease_key, document)
    with pytest.raises(LockedError), here.exclusive("prune"):
        pass
    (here.directory / "00000000dead0000").touch()  # made by a process that let go of its lock by dying
    with here.exclusive("prune"):
        assert lease_key not in stored(store)
    assert list(here.directory.iterdir()) == []


def test_recover_lets_go_of_dead_ones(here: Leases, store: MemoryStore) -> None:
    with here.exclusive("prune"):
        (document,) = stored(store).values()
        assert here.release_dead() == []
    store.put(layout.lease("00000000dead0000", 3), document)
    (here.directory / "00000000dead0000").touch()
    (said,) = here.release_dead()
    assert said.startswith("prune by backupd test on here")
    assert stored(store) == {}, "an exclusive lease commits nothing, so there is nothing to withdraw"


def test_what_cannot_be_read_counts_until_it_is_old(here: Leases, store: MemoryStore, clock: TickingClock) -> None:
    store.put(layout.lease("00000000bad00000", 0), b"{}")
    with pytest.raises(LockedError, match="a lease that cannot be read"), here.shared("backup"):
        pass
    clock.time += 2 * DURATION + timedelta(minutes=1)
    with here.shared("backup"):
        assert layout.lease("00000000bad00000", 0) not in stored(store)


def test_other_keys_are_left_alone(here: Leases, store: MemoryStore) -> None:
    store.put("leases/README", b"not ours")
    with here.exclusive("prune"):
        pass
    assert stored(store) == {"leases/README": b"not ours"}


class NoDeletes(MemoryStore):
    def delete(self, key: str) -> None:
        raise StoreDenied(f"may not delete {key}")


def test_where_deleting_is_denied_a_word_releases(tmp_path: Path, clock: TickingClock) -> None:
    store = NoDeletes("one", clock)
    here, there = (a_host(store, tmp_path, name, clock) for name in ("here", "there"))
    with here.shared("backup"), pytest.raises(LockedError), there.exclusive("prune"):
        pass
    with there.exclusive("prune"):
        pass
    with here.shared("backup") as lease:
        clock.time += DURATION
        lease.renew()
        lease.confirm()


def test_where_deleting_is_denied_one_that_ran_out_stops_prune_alone(tmp_path: Path, clock: TickingClock) -> None:
    store = NoDeletes("one", clock)
    here, there = (a_host(store, tmp_path, name, clock) for name in ("here", "there"))
    with here.exclusive("prune") as held:
        clock.time += 3 * DURATION
        with there.shared("backup") as lease:
            lease.confirm()
        with pytest.raises(StoreDenied), there.exclusive("prune"):
            pass
        with pytest.raises(LeaseLost):
            held.require()


class Forgetful(MemoryStore):
    def list(self, prefix: str = ""):  # type: ignore[no-untyped-def]
        return iter(())


def test_a_store_that_does_not_list_what_it_was_given_is_not_trusted(tmp_path: Path, clock: TickingClock) -> None:
    store = Forgetful("one", clock)
    with pytest.raises(StoreError, match="does not list"), a_host(store, tmp_path, "here", clock).shared("backup"):
        pass


def test_a_withdrawn_snapshot_is_none(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.root().mkdir(parents=True)
    place.backup()
    place.stores[0].put(layout.snapshot("0000beef0000beef"), layout.WITHDRAWN)
    repository = place.repository()
    manifests, damaged = repository.snapshots()
    assert (len(manifests), damaged) == (1, [])
    with pytest.raises(SnapshotNotFound, match="never finished"):
        repository.load("0000beef0000beef")
