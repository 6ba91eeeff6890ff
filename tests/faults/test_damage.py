"""Hundreds of random damages to every kind of object: verification finds each, a restore brings every byte or none.

BACKUPD_DAMAGES says how many (`make torture`: 1,000 for each kind of repository), and what happens follows from
BACKUPD_SEED. What cannot be noticed, as nothing refers to it, is that a drill record or a lease is gone.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from backupd.backup import back_up
from backupd.errors import BackupdError, IntegrityError, ObjectNotFound, RepositoryError, SnapshotNotFound
from backupd.model import Compression
from backupd.recovery import GUIDE, SCRIPT
from backupd.repository import Repository, keep_drill, layout
from backupd.stores.memory import MemoryStore
from backupd.strays import damaged_strays
from backupd.transfer import export_tar
from backupd.verify.verifier import Verifier
from tests.support.drills import record
from tests.support.keys import Machine, Pair, pair, use
from tests.support.runtime import Place, RecordingProgress, put
from tests.support.two_stores import SMALL
from tools.fingerprint import differences, fingerprint

DAMAGES = int(os.environ.get("BACKUPD_DAMAGES", "400"))
SEED = int(os.environ.get("BACKUPD_SEED", "0")) or random.SystemRandom().randrange(1, 1_000_000)
UNMISSED = (layout.DRILLS, layout.LEASES)
KINDS = ("flip", "flip", "flip", "truncate", "delete", "swap", "replace", "append", "zero")


class Damaged:
    """Two volumes, four snapshots, all codecs, chains of small chunks, a drill record and a lease."""

    def __init__(self, base: Path, secret: Pair | None) -> None:
        self.place = place = Place(base, stores=[MemoryStore("one")], names=("data", "logs"))
        self.secret = secret
        if secret is not None:
            use(place, Machine(place.runtime.state).security([secret.public], secret))
        dice = random.Random(7)
        for name in place.names:
            (place.root(name) / "sub").mkdir(parents=True)
            (place.root(name) / "a").write_bytes(dice.randbytes(60_000))
            (place.root(name) / "sub" / "b").write_bytes(b"text\n" * 40_000)
        security = place.runtime.security
        store, now, new_id = place.stores[0], place.clock.now(), place.runtime.new_id
        repository = Repository.open_or_create(
            store, threads=2, now=now, new_id=new_id, chunker=SMALL, security=security
        )
        for codec in ("zstd", "gzip", "none", "zstd"):
            place.compression = Compression(codec)
            (place.root() / codec).write_bytes(dice.randbytes(30_000))
            snapshot = back_up(place.plan, place.runtime, place.stores).manifest
        if secret is None:  # that of an encrypted one stays in the state directory
            assert keep_drill(repository, record(snapshot=snapshot.id), place.runtime.state) is None
        self.leases = ExitStack()
        self.leases.enter_context(place.runtime.leases(store).shared("a backup"))
        self.objects = {info.key: store.read(info.key) for info in store.list()}
        self.kinds = {self.kind(key) for key in self.objects}

    @staticmethod
    def kind(key: str) -> str:
        parts = key.split("/")
        return parts[0] if parts[0] != "archives" else parts[-1].split(".", 1)[1]

    def draw(self, dice: random.Random) -> tuple[str, dict[str, bytes | None]]:
        """What was done, and the objects that are different now. Each kind of object is as likely as the others."""
        kind_of_object = dice.choice(sorted(self.kinds))
        key = dice.choice(sorted(key for key in self.objects if self.kind(key) == kind_of_object))
        data = self.objects[key]
        kind = dice.choice([kind for kind in KINDS if kind != "delete" or not key.startswith(UNMISSED)])
        if kind == "flip":
            position = dice.randrange(len(data))
            flipped = data[position] ^ (1 << dice.randrange(8))
            return f"flip in {key} at {position}", {key: data[:position] + bytes([flipped]) + data[position + 1 :]}
        if kind == "truncate":
            return f"truncate {key}", {key: data[: dice.randrange(len(data))]}
        if kind == "append":
            return f"append to {key}", {key: data + dice.randbytes(5)}
        if kind == "zero":
            begin = dice.randrange(len(data))
            end = min(len(data), begin + 512)
            return f"zeros in {key} at {begin}", {key: data[:begin] + bytes(end - begin) + data[end:]}
        if kind == "delete":
            return f"delete {key}", {key: None}
        other = dice.choice(sorted(self.objects))
        changed: dict[str, bytes | None] = {key: self.objects[other]}
        if kind == "swap":
            changed[other] = data
        return f"{kind} {key} by {other}", changed

    def change(self, changed: dict[str, bytes | None]) -> None:
        for key, data in changed.items():
            self.place.stores[0].delete(key)
            if data is not None:
                self.place.stores[0].put(key, data)

    def mend(self, changed: dict[str, bytes | None]) -> None:
        for key in changed:
            put(self.place.stores[0], key, self.objects[key])

    def found(self, dice: random.Random) -> bool:
        """Whether `verify --read-data` says something."""
        try:
            repository = self.place.repository()
        except (IntegrityError, RepositoryError):
            return True
        manifests, damaged = repository.snapshots()
        if damaged or any(damaged_strays(repository)):
            return True
        findings = Verifier(repository, RecordingProgress(), 1.0, dice).verify(manifests)
        # Without a memory of what was there, a manifest that is gone leaves no trace but its absence.
        forgotten = self.secret is None and len(manifests) < 4
        return forgotten or any(finding.problem for finding in findings)


@pytest.fixture(scope="module", params=["plain", "encrypted and signed"])
def damaged(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Damaged:
    return Damaged(tmp_path_factory.mktemp("damage"), pair() if request.param != "plain" else None)


def test_random_damage(damaged: Damaged, record_property) -> None:  # type: ignore[no-untyped-def]
    print(f"BACKUPD_DAMAGES={DAMAGES} BACKUPD_SEED={SEED}")
    record_property("seed", SEED)
    dice = random.Random(SEED)
    assert damaged.kinds >= {"backupd.json", SCRIPT, GUIDE, "snapshots", "leases"}
    assert len(damaged.kinds) >= (9 if damaged.secret else 11)
    repository = damaged.place.repository()
    streams = {
        (manifest.id, archive.volume): b"".join(bytes(chunk) for chunk in repository.tar(archive))
        for manifest in repository.snapshots()[0]
        for archive in manifest.archives
    }
    tried: Counter[str] = Counter()
    while tried.total() < DAMAGES:
        what, changed = damaged.draw(dice)
        if all(damaged.objects[key] == data for key, data in changed.items()):
            continue
        damaged.change(changed)
        assert damaged.found(dice), what
        check_streams(damaged.place, streams, what, dice)
        damaged.mend(changed)
        tried[what.split()[0]] += 1
    assert not damaged.found(dice)
    print(dict(tried))


def check_streams(place: Place, streams: dict[tuple[str, str], bytes], what: str, dice: random.Random) -> None:
    """A stream comes out as it was, or as its beginning followed by the right error."""
    for (snapshot_id, volume), expected in dice.sample(sorted(streams.items()), 4):
        came = bytearray()
        try:
            repository = place.repository()
            archive = repository.load(snapshot_id).archive(volume)
            assert archive is not None
            export_tar(repository, archive, came.extend, RecordingProgress())
        except (IntegrityError, SnapshotNotFound, RepositoryError):
            assert expected.startswith(came), what
        else:
            assert came == expected, what


def test_restore_of_damaged_snapshots(damaged: Damaged, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "sync").symlink_to("/bin/true")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    print(f"BACKUPD_DAMAGES={DAMAGES} BACKUPD_SEED={SEED}")
    dice = random.Random(SEED)
    place = damaged.place
    snapshot = place.repository().resolve("latest")
    expected = place.prints()
    (place.root() / "a").write_text("changed")
    (place.root("logs") / "new").touch()
    before = place.prints()
    done = 0
    for _ in range(DAMAGES // 40):
        what, changed = damaged.draw(dice)
        damaged.change(changed)
        now = before
        try:
            place.restore(snapshot, safety_snapshot=False)
            now = expected
            done += 1
        except (IntegrityError, ObjectNotFound, RepositoryError):
            pass
        except BackupdError as exc:
            pytest.fail(f"{what}: {exc!r}")
        for name in place.names:
            assert differences(now[name], fingerprint(place.root(name))) == [], what
        before = now
        damaged.mend(changed)
        if now is expected:
            (place.root() / "a").write_text("changed again")
            before = place.prints()
    print(f"{done} restores were whole")


@pytest.mark.parametrize("damaged", ["plain"], indirect=True)
@pytest.mark.parametrize("prefix", [layout.LEASES, layout.DRILLS, SCRIPT, GUIDE])
def test_a_backup_goes_on_beside_what_is_damaged(damaged: Damaged, prefix: str) -> None:
    """None of these keeps a backup from being taken, but a lease that may be a prune's, and that until it runs out."""
    dice = random.Random(SEED)
    keys = [key for key in damaged.objects if key.startswith(prefix)]
    for key in keys:
        data = damaged.objects[key]
        for changed in (b"", data[: len(data) // 2], b"\xff" + data[1:], b"[" * 100_000, dice.randbytes(500)):
            store = MemoryStore("one", damaged.place.clock)
            store._objects.update({k: (v, damaged.place.clock.now()) for k, v in damaged.objects.items()})
            put(store, key, changed)
            place = replace(damaged.place, stores=[store])
            place.runtime, place.clock = damaged.place.runtime, damaged.place.clock
            try:
                assert place.backup().complete
            except BackupdError as exc:
                assert prefix == layout.LEASES, exc  # noqa: PT017
                assert "a lease that cannot be read" in str(exc)  # noqa: PT017
