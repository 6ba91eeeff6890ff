"""Whole operations on a real S3 server behind a proxy that throttles, fails, stalls and cuts, and on one that dies.

What goes wrong for a while is borne; what lasts fails the operation, which leaves what is listed whole, and the next
run succeeds. Nothing half-written is left in the bucket.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from msgspec.structs import replace

from backupd.errors import BackupdError, StoreUnavailable
from backupd.model import FullEvery, KeepPolicy, VolumeSpec
from backupd.prune.operation import prune
from backupd.prune.outline import PruneRequest
from backupd.prune.rules import Rules
from backupd.repository import Repository
from backupd.stores.s3 import S3Store
from backupd.verify.verifier import Verifier
from backupd.wiring import SystemClock, new_id
from tests.support import s3_proxy, seaweedfs
from tests.support.runtime import Place, RecordingProgress
from tests.support.s3 import MIB, S3Server
from tests.support.s3_proxy import Action, Answer, CutAnswer, CutRequest, Proxy, Request, Slowly, after, times
from tools.fingerprint import differences, fingerprint

pytestmark = pytest.mark.s3

SEED = int(os.environ.get("BACKUPD_SEED", "0")) or random.SystemRandom().randrange(1, 1_000_000)
ROUNDS = int(os.environ.get("BACKUPD_S3_ROUNDS", "1"))
TROUBLE: dict[str, Action] = {
    "throttled": Answer(503, "SlowDown"),
    "too many": Answer(429, "TooManyRequests"),
    "internal error": Answer(500, "InternalError"),
    "gateway": Answer(502),
    "cut in mid-part": CutRequest(300_000),
    "answer lost": CutAnswer(None),
    "answer cut": CutAnswer(50),
}


@pytest.fixture
def proxy(seaweedfs_s3: S3Server) -> Iterator[Proxy]:
    with s3_proxy.running(seaweedfs_s3.endpoint_url) as running:
        yield running


def on(server: S3Server, endpoint_url: str, base: Path, **options: object) -> Place:
    store = S3Store(
        "s3", server.options(endpoint_url=endpoint_url, **options), SystemClock(), claims=base / "state" / "uploads"
    )
    place = Place(base, stores=[store], full_every=FullEvery())
    place.runtime = replace(place.runtime, clock=SystemClock(), new_id=new_id)
    place.root().mkdir(parents=True, exist_ok=True)
    return place


def store_of(place: Place) -> S3Store:
    store = place.stores[0]
    assert isinstance(store, S3Store)
    return store


def change(place: Place, dice: random.Random) -> None:
    (place.root() / "big").write_bytes(dice.randbytes(7 * MIB))
    (place.root() / f"small-{dice.randrange(3)}").write_bytes(dice.randbytes(1000))


def check(place: Place) -> int:
    """What is listed is whole, and no half-written object stays; how many snapshots there are."""
    place.stores[0].remove_stale_uploads(None, datetime.now(UTC))  # as the next backup does
    assert list(store_of(place)._unfinished()) == []
    repository = Repository.open(place.stores[0], threads=2)
    manifests, damaged = repository.snapshots()
    assert damaged == []
    findings = Verifier(repository, RecordingProgress(), 1.0, random.Random(0)).verify(manifests)
    assert [finding for finding in findings if finding.problem] == []
    return len(manifests)


def do_everything(place: Place, dice: random.Random) -> None:
    change(place, dice)
    before = fingerprint(place.root())
    manifest = place.backup().manifest
    target = place.base / f"out-{manifest.id}"
    place.restore(manifest, into=VolumeSpec("--to-dir", path=str(target)))
    assert differences(before, fingerprint(target)) == []
    check(place)
    rules = Rules({"nightly": (KeepPolicy(last=2), "UTC")}, place.runtime.lock_wait, place.runtime.lock_wait)
    prune(place.repository(), PruneRequest(rules), place.runtime)


def test_every_request_may_fail_for_a_while(proxy: Proxy, seaweedfs_s3: S3Server, tmp_path: Path) -> None:
    """A tenth of all requests, of any kind, in any way."""
    print(f"BACKUPD_S3_ROUNDS={ROUNDS} BACKUPD_SEED={SEED}")
    dice = random.Random(SEED)
    place = on(seaweedfs_s3, proxy.endpoint_url, tmp_path, max_attempts=8)
    place.backup()
    lock = threading.Lock()
    tried = dict.fromkeys(TROUBLE, 0)

    def rule(request: Request) -> Action | None:
        with lock:
            if dice.random() > 0.1:
                return None
            name = dice.choice(list(TROUBLE))
            if name == "cut in mid-part" and request.method != "PUT":
                return None
            tried[name] += 1
            return TROUBLE[name]

    proxy.rules.append(rule)
    for _ in range(ROUNDS):
        do_everything(place, random.Random(SEED))
    print(tried)
    proxy.rules.clear()
    assert check(place) >= 2
    assert sum(tried.values()) > 0
    store_of(place).close()


@pytest.mark.parametrize("trouble", TROUBLE)
def test_an_outage_from_the_nth_request_on(proxy: Proxy, seaweedfs_s3: S3Server, tmp_path: Path, trouble: str) -> None:
    """However far a backup had come: it fails as unavailable, and the next one succeeds.

    That one gives up at once; whatever else is done here is as patient as ever, on a machine that may be busy.
    """
    dice = random.Random(SEED)
    place = on(seaweedfs_s3, proxy.endpoint_url, tmp_path, max_attempts=8)
    patient = store_of(place)
    hasty = S3Store("s3", replace(patient._options, max_attempts=1), SystemClock(), claims=tmp_path / "state/uploads")
    change(place, dice)
    place.backup()
    begun = len(proxy.seen)
    change(place, dice)
    place.backup()
    all_of_it = len(proxy.seen) - begun
    done = check(place)
    failed = 0
    for number in sorted(dice.sample(range(1, all_of_it), min(2 * ROUNDS, all_of_it - 1))):
        change(place, dice)
        proxy.rules[:] = [after(number, lambda request: TROUBLE[trouble])]
        place.stores = [hasty]
        try:
            result = place.backup()
        except StoreUnavailable:
            failed += 1
        except BackupdError as exc:
            pytest.fail(f"request {number}: {exc!r}")
        else:  # only the release of the lease, or a repeated request, was left
            assert not result.store_failures or "s3" in result.store_failures
        proxy.rules.clear()
        place.stores = [patient]
        place.runtime.leases(place.stores[0]).release_dead()
        assert check(place) >= done
        change(place, dice)
        assert place.backup().complete
        done = check(place)
    assert failed
    hasty.close()
    patient.close()


def test_a_server_that_stalls(proxy: Proxy, seaweedfs_s3: S3Server, tmp_path: Path) -> None:
    """It takes requests and does not answer: after the timeouts they are sent again, and in the end given up."""
    place = on(seaweedfs_s3, proxy.endpoint_url, tmp_path, max_attempts=2, read_timeout_seconds=2)
    change(place, random.Random(SEED))
    place.backup()
    proxy.rules[:] = [times(1, lambda request: Slowly(5) if request.method == "PUT" else None)]
    change(place, random.Random(SEED + 1))
    assert place.backup().complete
    proxy.rules[:] = [lambda request: Slowly(5)]
    with pytest.raises(StoreUnavailable, match="does not answer"):
        place.backup()
    proxy.rules.clear()
    assert check(place) == 2
    store_of(place).close()


def test_a_server_that_is_slow(proxy: Proxy, seaweedfs_s3: S3Server, tmp_path: Path) -> None:
    place = on(seaweedfs_s3, proxy.endpoint_url, tmp_path)
    proxy.rules.append(lambda request: Slowly(0.1))
    do_everything(place, random.Random(SEED))
    proxy.rules.clear()
    assert check(place) == 1
    store_of(place).close()


@pytest.mark.slow
def test_a_server_that_is_killed_in_mid_backup(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A local store takes the snapshot in its place; once the server is back it is brought up to date."""
    from backupd.stores.local import LocalStore  # noqa: PLC0415

    with seaweedfs.Killable(tmp_path_factory.mktemp("weed")) as server:
        s3 = S3Server(server.url, seaweedfs.ACCESS_KEY, seaweedfs.SECRET_KEY)
        s3.make_bucket(s3.bucket)
        place = on(s3, server.url, tmp_path, max_attempts=2, connect_timeout_seconds=2)
        place.stores.append(LocalStore("local", tmp_path / "local"))
        change(place, random.Random(SEED))
        assert place.backup().complete
        store = store_of(place)
        create: Callable[..., object] = store.create

        def dies(key: str, size_hint: int | None = None) -> object:
            server.kill()
            return create(key, size_hint)

        monkeypatch.setattr(store, "create", dies)
        change(place, random.Random(SEED + 1))
        result = place.backup()
        assert {*result.store_failures} == {"s3"}
        assert result.store == "local"
        monkeypatch.undo()
        server.start()
        deadline = time.monotonic() + 120
        while not (again := place.backup()).complete and time.monotonic() < deadline:
            time.sleep(1)
        assert again.complete
        assert place.repository(0).snapshot_ids() == place.repository(1).snapshot_ids()
        check(place)
        store.close()
