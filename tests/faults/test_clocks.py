"""Clocks that jump, forward and back, in the middle of an operation and between two: of a machine, not of the store."""

from __future__ import annotations

import random
import shutil
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from backupd.model import KeepPolicy, VolumeSpec
from backupd.prune.outline import PruneRequest
from backupd.stores.local import LocalStore
from backupd.stores.memory import MemoryStore
from tests.support.pruning import DAY, another, check_all_that_is_listed, rules, run_prune, with_history
from tests.support.runtime import BEGIN, Place, TickingClock
from tools.fingerprint import differences, fingerprint

JUMPS = {"a day ahead": DAY, "ten years ahead": 3650 * DAY, "a day back": -DAY, "ten years back": -3650 * DAY}


@dataclass
class JumpingClock:
    """Jumps at its n-th look, for good."""

    jump: timedelta = timedelta()
    at: int = 0
    time: datetime = BEGIN
    looks: int = 0

    def now(self) -> datetime:
        self.looks += 1
        self.time += timedelta(seconds=1)
        if self.looks == self.at:
            self.time += self.jump
        return self.time


@pytest.fixture(params=JUMPS, ids=[name.replace(" ", "-") for name in JUMPS])
def jump(request: pytest.FixtureRequest) -> timedelta:
    return JUMPS[request.param]


def test_in_a_backup_and_in_a_restore(tmp_path: Path, jump: timedelta) -> None:
    """At some of the looks at the clock; the store keeps right time."""
    template = Place(tmp_path, stores=[])
    template.root().mkdir(parents=True)
    (template.root() / "a").write_bytes(random.Random(1).randbytes(50_000))
    for at in (0, *random.Random(tmp_path.name).sample(range(1, 35), 3)):
        clock = JumpingClock(jump, at)
        place = Place(tmp_path, stores=[MemoryStore("one", TickingClock()), MemoryStore("two", TickingClock())])
        shutil.rmtree(tmp_path / "state", ignore_errors=True)
        place.runtime = replace(place.runtime, clock=clock)
        (place.root() / "b").write_text(str(at))
        first = place.backup()
        (place.root() / "c").write_text(str(at))
        before = fingerprint(place.root())
        second = place.backup()
        assert first.complete
        assert second.complete
        target = tmp_path / f"out-{at}"
        place.restore(second.manifest, into=VolumeSpec("--to-dir", path=str(target)))
        assert differences(before, fingerprint(target)) == []
        for store in place.stores:
            assert len(check_all_that_is_listed(store)) == 2
            assert list(store.list("leases/")) == []
        assert clock.looks > 35


def test_before_a_prune(tmp_path: Path, jump: timedelta) -> None:
    """What is of the future is kept besides; never less is kept than the newest of each volume."""
    place = with_history(tmp_path)
    newest: dict[str, str] = {}
    for manifest in place.repository().snapshots()[0]:
        for archive in manifest.archives:
            newest.setdefault(archive.volume, manifest.id)
    place.clock.time += jump
    for policy in (KeepPolicy(within=2 * DAY), KeepPolicy(last=1), KeepPolicy(daily=2, monthly=1)):
        pruned = run_prune(place, PruneRequest(rules(policy)))
        left = check_all_that_is_listed(place.stores[0])
        assert {*newest.values()} <= {*left}
        assert pruned.left == ()


def test_of_one_host_while_another_writes(tmp_path: Path, jump: timedelta) -> None:
    """Leases run by the store's clock: who thinks it is another day neither takes them away nor is locked out."""
    place = with_history(tmp_path)
    elsewhere = another(place)
    elsewhere.clock = TickingClock(place.clock.time + jump)
    elsewhere.runtime = replace(elsewhere.runtime, clock=elsewhere.clock)
    with place.runtime.leases(place.stores[0]).shared("a backup") as lease:
        assert elsewhere.backup().complete
        lease.confirm()
        with pytest.raises(Exception, match="is in use: a backup"):
            run_prune(elsewhere)
        lease.confirm()
    run_prune(elsewhere)
    check_all_that_is_listed(place.stores[0])


def test_what_others_write_is_not_old_by_a_wrong_clock(tmp_path: Path, jump: timedelta) -> None:
    store = LocalStore("one", tmp_path / "store")
    place = Place(tmp_path, stores=[store])
    place.root().mkdir(parents=True)
    place.backup()
    of_another_machine = tmp_path / "store" / ".unfinished" / "deadbeef-0123"
    of_another_machine.write_bytes(b"half an archive")
    place.clock.time = datetime.now(BEGIN.tzinfo) + jump
    assert place.backup().complete
    assert of_another_machine.exists()
