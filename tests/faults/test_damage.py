"""Hundreds of random damages: verification finds each, and a restore brings back every byte or none."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from backupd.archive import ChunkerParameters
from backupd.backup import back_up
from backupd.errors import BackupdError, IntegrityError, ObjectNotFound, RepositoryError, SnapshotNotFound
from backupd.model import Compression
from backupd.repository import Repository
from backupd.stores.memory import MemoryStore
from backupd.transfer import export_tar
from backupd.verify import Verifier
from tests.support.runtime import Place, RecordingProgress, put, stored
from tools.fingerprint import differences, fingerprint

ROUNDS = 300
SMALL = ChunkerParameters(minimum=4096, average=16384, maximum=65536)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Two volumes, four snapshots, all codecs, chains; small chunks, so that there are many."""
    place = Place(tmp_path_factory.mktemp("damage"), stores=[MemoryStore("one")], names=("data", "logs"))
    dice = random.Random(7)
    for name in place.names:
        (place.root(name) / "sub").mkdir(parents=True)
        (place.root(name) / "a").write_bytes(dice.randbytes(60_000))
        (place.root(name) / "sub" / "b").write_bytes(b"text\n" * 40_000)
    Repository.open_or_create(
        place.stores[0], threads=2, now=place.clock.now(), new_id=place.runtime.new_id, chunker=SMALL
    )
    for codec in ("zstd", "gzip", "none", "zstd"):
        place.compression = Compression(codec)  # type: ignore[arg-type]
        (place.root() / codec).write_bytes(dice.randbytes(30_000))
        back_up(place.plan, place.runtime, place.stores)
    return place


def damage(dice: random.Random, objects: dict[str, bytes]) -> tuple[str, dict[str, bytes | None]]:
    """What was done, and the objects that are different now."""
    key = dice.choice(sorted(objects))
    data = objects[key]
    kind = dice.choice(("flip", "flip", "flip", "truncate", "delete", "swap", "replace", "append", "zero"))
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
    other = dice.choice(sorted(objects))
    changed: dict[str, bytes | None] = {key: objects[other]}
    if kind == "swap":
        changed[other] = data
    return f"{kind} {key} by {other}", changed


def test_random_damage(place: Place) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    dice = random.Random(seed)
    objects = stored(place.stores[0])
    repository = place.repository()
    manifests, _ = repository.snapshots()
    streams = {
        (manifest.id, archive.volume): b"".join(bytes(chunk) for chunk in repository.tar(archive))
        for manifest in manifests
        for archive in manifest.archives
    }
    for _ in range(ROUNDS):
        what, changed = damage(dice, objects)
        if all(objects[key] == data for key, data in changed.items()):
            continue
        for key, data in changed.items():
            if data is None:
                place.stores[0].delete(key)
            else:
                put(place.stores[0], key, data)
        assert found(place, dice, len(manifests)), what
        check_streams(place, streams, what)
        for key in changed:
            put(place.stores[0], key, objects[key])
    assert not found(place, dice, len(manifests))


def found(place: Place, dice: random.Random, expected: int) -> bool:
    """Whether `verify --read-data` would say something. A manifest that is gone leaves no trace but its absence."""
    try:
        repository = place.repository()
    except (IntegrityError, RepositoryError):
        return True
    manifests, damaged = repository.snapshots()
    findings = Verifier(repository, RecordingProgress(), 1.0, dice).verify(manifests)
    return len(manifests) < expected or bool(damaged) or any(finding.problem for finding in findings)


def check_streams(place: Place, streams: dict[tuple[str, str], bytes], what: str) -> None:
    """A stream comes out as it was, or as its beginning followed by the right error."""
    for (snapshot_id, volume), expected in streams.items():
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


def test_restore_of_damaged_snapshots(place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "sync").symlink_to("/bin/true")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    dice = random.Random(seed)
    objects = stored(place.stores[0])
    snapshot = place.repository().resolve("latest")
    expected = place.prints()
    (place.root() / "a").write_text("changed")
    (place.root("logs") / "new").touch()
    before = place.prints()
    done = 0
    for _ in range(30):
        what, changed = damage(dice, objects)
        for key, data in changed.items():
            place.stores[0].delete(key)
            if data is not None:
                place.stores[0].put(key, data)
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
        for key in changed:
            put(place.stores[0], key, objects[key])
    print(f"{done} restores were whole")
