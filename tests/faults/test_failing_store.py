"""A store fails at its n-th operation, for every n: what is listed is whole, and the next run succeeds."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from backupd.backup import BackupResult, back_up
from backupd.drill.operation import DrillRequest, drill
from backupd.drill.options import DrillOptions
from backupd.errors import BackupdError, StoreFull, StoreUnavailable
from backupd.journal import Journal
from backupd.model import KeepPolicy, VolumeSpec
from backupd.recover import recover
from backupd.repository import Manifest, drills_of, keep_drill, last_drills, layout, proven, standing_of, standings
from backupd.restore.operation import restore
from backupd.restore.target import RestoreRequest, plan_restore
from backupd.stores.memory import MemoryStore
from backupd.verify.operation import verify
from backupd.verify.recording import Look, keep_findings
from backupd.verify.result import VerifyRequest
from backupd.verify.verifier import Finding, Verifier
from tests.support.faulty_store import Crash, FaultyStore
from tests.support.runtime import Place, RecordingProgress, stored
from tools.fingerprint import differences, fingerprint

Kind = tuple[str, Callable[[], BaseException], bool]
KINDS: tuple[Kind, ...] = (
    ("unavailable", lambda: StoreUnavailable("away"), False),
    ("unavailable after", lambda: StoreUnavailable("away, but it was done"), True),
    ("full", lambda: StoreFull("full"), False),
    ("crash", Crash, False),
    ("crash after", Crash, True),
)


@pytest.fixture(params=KINDS, ids=[name for name, _, _ in KINDS])
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sync").symlink_to("/bin/true")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    place = Place(tmp_path, stores=[FaultyStore(MemoryStore("one"))])
    (place.root() / "sub").mkdir(parents=True)
    (place.root() / "sub" / "a").write_bytes(random.Random(1).randbytes(100_000))
    (place.root() / "b").write_text("b")
    return place


def faulty(place: Place, number: int = 0) -> FaultyStore:
    store = place.stores[number]
    assert isinstance(store, FaultyStore)
    return store


def failures(place: Place, which: int, kind: Kind, action: Callable[[], object]) -> Iterator[int]:
    """Carry out `action` with a failure at its first, second, … operation, until there are no more.

    The stores are each time what they were at the beginning, or else every attempt would have more to do.
    """
    _, error, after = kind
    beginning = [stored(store) for store in place.stores]
    for number in range(1, 200):
        for each, content in enumerate(beginning):
            faulty(place, each).store = memory = MemoryStore(place.stores[each].name)
            for key, data in content.items():
                memory.put(key, data)
        if not any(beginning):
            shutil.rmtree(place.runtime.state, ignore_errors=True)  # which remembers the repositories it has seen
        store = faulty(place, which)
        store.mend()
        store.fail_at(number, error())
        store.after = after
        try:
            action()
        except (BackupdError, Crash):
            assert store.failed
        happened = store.failed
        store.mend()
        if not happened:
            assert number > 3
            return
        yield number
    pytest.fail("it never came to an end")


def check_all_that_is_listed(place: Place) -> None:
    for number, _ in enumerate(place.stores):
        repository = place.repository(number)
        manifests, damaged = repository.snapshots()
        assert damaged == []
        verifier = Verifier(repository, RecordingProgress(), 1.0, random.Random(0))
        assert [finding.problem for finding in verifier.verify(manifests) if finding.problem] == []


def test_backup(place: Place, kind: Kind) -> None:
    place.backup()
    (place.root() / "b").write_text("changed")
    before = fingerprint(place.root())
    for number in failures(place, 0, kind, place.backup):
        check_all_that_is_listed(place)
        manifest = place.backup().manifest
        target = place.base / f"copy-{number}"
        place.restore(manifest, into=VolumeSpec("--to-dir", path=str(target)))
        assert differences(before, fingerprint(target)) == []
        shutil.rmtree(target)


def test_first_backup_into_an_empty_store(place: Place, kind: Kind) -> None:
    for _ in failures(place, 0, kind, place.backup):
        assert place.backup().complete
        check_all_that_is_listed(place)


@pytest.mark.parametrize("which", [0, 1])
def test_replicate(place: Place, kind: Kind, which: int) -> None:
    place.stores.append(FaultyStore(MemoryStore("two")))
    place.backup()
    (place.root() / "b").write_text("changed")
    for _ in failures(place, which, kind, place.backup):
        check_all_that_is_listed(place)
        last = place.backup()
        assert last.complete
        check_all_that_is_listed(place)
        ids = [place.repository(number).snapshot_ids() for number in (0, 1)]
        # A manifest whose writing seemed to fail is there all the same, and the other store has a later one instead.
        assert ids[0] == ids[1] or (kind[0] == "unavailable after" and len(ids[0] ^ ids[1]) == 1)
        assert last.manifest.id in ids[0] & ids[1]


@pytest.mark.parametrize("kind", KINDS[:3:2], ids=["unavailable", "full"], indirect=True)
@pytest.mark.parametrize("lacking", [0, 1])
def test_records_that_cannot_be_read(place: Place, kind: Kind, lacking: int) -> None:
    """With stores that keep different snapshots, a store that fails costs nothing in the other one."""
    place.stores.append(FaultyStore(MemoryStore("two")))
    keep = [KeepPolicy(last=3 - 2 * (number == lacking)) for number in (0, 1)]
    plan = replace(place.plan, keep=dict(zip(("one", "two"), keep, strict=True)))
    for number in range(3):
        (place.root() / "b").write_text(f"{number}")
        taken = back_up(plan, place.runtime, place.stores).manifest
        place.clock.time += timedelta(days=1)
    pruned = place.repository(lacking)
    pruned.store.delete(layout.snapshot(pruned.snapshots()[0][-1].id))
    found = Finding(taken.id, "data", problem="gone")
    keep_findings(pruned, taken, [found], Look(place.clock.now(), "sizes"), place.runtime)
    (place.root() / "b").write_text("changed")
    results: list[BackupResult] = []
    for _ in failures(place, 1, kind, lambda: results.append(back_up(plan, place.runtime, place.stores))):
        taken = results.pop().manifest
        assert taken.id in place.repository(0).snapshot_ids()
        assert results == [], "one for every failure"
    assert "cannot tell what is damaged" in " ".join(place.notes)


@pytest.mark.parametrize("safety", [True, False], ids=["safety", "no safety"])
def test_restore(place: Place, kind: Kind, safety: bool) -> None:
    restored = fingerprint(place.root())
    snapshot = place.backup().manifest
    (place.root() / "b").write_text("changed")
    (place.root() / "c").touch()
    subprocess.run(["cp", "-a", place.root(), place.base / "before"], check=True)
    before = fingerprint(place.root())
    done = False

    def attempt() -> None:
        nonlocal done
        done = False
        place.restore(snapshot, safety_snapshot=safety)
        done = True

    for _ in failures(place, 0, kind, attempt):
        recover(place.runtime, [place.spec()])
        # A lease that cannot be removed from the store is no reason to give up.
        assert differences(restored if done else before, fingerprint(place.root())) == []
        check_all_that_is_listed(place)
        if done:
            shutil.rmtree(place.root())
            subprocess.run(["cp", "-a", place.base / "before", place.root()], check=True)
    assert differences(restored, fingerprint(place.root())) == []


def test_verify(place: Place, kind: Kind) -> None:
    place.backup()
    (place.root() / "b").write_text("changed")
    place.backup()
    assert len(list(failures(place, 0, kind, lambda: check_all_that_is_listed(place)))) > 3


def test_check_records(place: Place, kind: Kind) -> None:
    """A look that was cut short leaves no record, or a whole one; the next one is noted."""
    snapshot = place.backup().manifest.id

    def look() -> None:
        request = VerifyRequest(snapshot, fraction=1.0)
        verify(place.stores, request, place.runtime, random.Random(0)).require_good()

    for _ in failures(place, 0, kind, look):
        known = standings(place.repository())
        assert known.problems == []
        assert known.get(snapshot).state in {"unverified", "good"}
        look()
        assert standing_of(place.repository(), snapshot).state == "good"


def conduct(place: Place, manifest: Manifest) -> None:
    request = DrillRequest((), place.spec, lambda _volume: DrillOptions())
    repository = place.repository()
    keep_drill(repository, drill(request, manifest, repository, place.runtime), place.runtime.state)


@pytest.mark.parametrize("kind", KINDS[::2], ids=[name for name, _, _ in KINDS[::2]], indirect=True)
def test_drill_records(place: Place, kind: Kind) -> None:
    """So it is with drills; a store that fails is never taken for a snapshot that does."""
    manifest, state = place.backup().manifest, place.runtime.state
    for _ in failures(place, 0, kind, lambda: conduct(place, manifest)):
        recover(place.runtime, [place.spec()])
        assert Journal(state).open_acts() == []
        assert not list((state / "drills").glob("*"))
        known = last_drills(place.repository(), state)
        assert [*known.damaged, *known.doubted] == []
        assert all(record.good for record in known.records.values())
    conduct(place, manifest)
    assert last_drills(place.repository(), state).records[manifest.id].good


def test_reading_records(place: Place, kind: Kind) -> None:
    """Whoever asks is told all there is, or an error; never less than there is."""
    manifest, state = place.backup().manifest, place.runtime.state
    conduct(place, manifest)
    verify(place.stores, VerifyRequest(manifest.id), place.runtime, random.Random(0)).require_good()
    told: list[object] = []

    def ask() -> None:
        one = place.repository()
        drills = drills_of(one, manifest.id, state), last_drills(one, state), proven(one, state)
        told.append((standings(one), standing_of(one, manifest.id), *drills))

    ask()
    assert len(list(failures(place, 0, kind, ask))) > 8
    assert told == [told[0]] * 2, "by the first and by the last, which did not fail"


def test_plan_writes_nothing(place: Place) -> None:
    snapshot = place.backup().manifest
    before = stored(place.stores[0])
    repository = place.repository()
    steps = plan_restore(RestoreRequest(), snapshot, repository, place.runtime, {"data": place.spec()})
    assert stored(place.stores[0]) == before
    restore(steps, RestoreRequest(safety_snapshot=False), repository, place.runtime)
    assert stored(place.stores[0]) == before
