"""Forged, altered, exchanged and missing snapshots are noticed; what is right passes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from backupd.errors import BackupdError, ConfigError, IntegrityError, SourceError
from backupd.repository import Manifest, Repository
from backupd.repository.documents import decode, encode, signature_of
from backupd.security import Security
from backupd.signingkey import OwnKey
from backupd.stores.memory import MemoryStore
from tests.support.keys import Machine, use
from tests.support.runtime import Place, put


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "state")


@pytest.fixture
def place(tmp_path: Path, machine: Machine) -> Place:
    place = Place(tmp_path)
    place.root().mkdir(parents=True)
    (place.root() / "file").write_text("content")
    return use(place, machine.security())


def key_of(manifest: Manifest) -> str:
    return f"snapshots/{manifest.id}.json"


def problems(place: Place, machine: Machine | None = None) -> list[str]:
    security = machine.security() if machine else place.runtime.security
    _, damaged = Repository.open(place.stores[0], threads=2, security=security).snapshots()
    assert all(isinstance(problem, IntegrityError) for problem in damaged)
    assert {problem.exit_code for problem in damaged} <= {13}
    return [str(problem) for problem in damaged]


def test_manifests_are_signed(place: Place, machine: Machine) -> None:
    manifest = place.backup().manifest
    signature = signature_of(place.stores[0].read(key_of(manifest)))
    assert signature is not None
    assert signature.signer == machine.key
    assert problems(place) == []
    document = json.loads(place.stores[0].read(key_of(manifest)))
    assert (document["format"], document["signer"]) == (1, machine.key)  # legible to earlier versions


def test_the_key_is_private_and_stays(tmp_path: Path) -> None:
    own = OwnKey(tmp_path / "state")
    assert own.public() is None
    public = own().public
    path = tmp_path / "state" / "signing.key"
    assert path.stat().st_mode & 0o777 == 0o600
    assert OwnKey(tmp_path / "state")().public == OwnKey(tmp_path / "state").public() == public
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="read by others"):
        OwnKey(tmp_path / "state")()
    path.chmod(0o600)
    path.write_text("garbage")
    with pytest.raises(ConfigError, match="not a signing key"):
        OwnKey(tmp_path / "state")()


def resigned(manifest: Manifest, machine: Machine | None, **changes: object) -> bytes:
    return encode(msgspec.structs.replace(manifest, **changes), OwnKey(machine.state)() if machine else None)


@pytest.mark.parametrize("seen", [True, False])
def test_altered_manifests(place: Place, machine: Machine, tmp_path: Path, seen: bool) -> None:
    """By somebody who makes the seal right, and who has no key, another key, or glues the old signature on."""
    place.backup()
    manifest = place.backup().manifest
    data = place.stores[0].read(key_of(manifest))
    stranger = Machine(tmp_path / "stranger")
    signature = data[data.index(b',\n "signer"') : data.index(b',\n "blake3"')]
    glued = resigned(manifest, None, plan="other")
    glued = glued[: glued.index(b',\n "blake3"')] + signature
    from blake3 import blake3  # noqa: PLC0415

    glued += b',\n "blake3": "%b"\n}\n' % blake3(glued).hexdigest().encode()
    assert decode(glued, Manifest, "k").plan == "other"
    if not seen:
        machine.security().trust.removed(place.repository().config.id, [manifest.id])  # type: ignore[union-attr]
    for forged, said in (
        (resigned(manifest, None, plan="other"), "is not signed"),
        (resigned(manifest, stranger), "signed by a key that is not trusted"),
        (glued, "forged or altered"),
    ):
        put(place.stores[0], key_of(manifest), forged)
        (problem,) = problems(place)
        assert ("exchanged" if seen else said) in problem
        with pytest.raises(IntegrityError):
            place.repository().load(manifest.id)
        with pytest.raises(IntegrityError):
            place.repository().resolve(manifest.id[:8])
        assert [found.id for found in place.repository().snapshots()[0]] != []
    put(place.stores[0], key_of(manifest), data)
    assert problems(place) == []


def test_a_signed_snapshot_under_another_id(place: Place) -> None:
    one, two = place.backup().manifest, place.backup().manifest
    data = place.stores[0].read(key_of(one))
    put(place.stores[0], key_of(two), data)
    assert ["manifest of another snapshot" in problem for problem in problems(place)] == [True]
    put(place.stores[0], "snapshots/ffff0000ffff0000.json", data)
    assert len(problems(place)) == 2


def test_a_snapshot_of_our_own_that_is_rewritten(place: Place, machine: Machine) -> None:
    """Even by somebody who has the key: what was seen must stay."""
    manifest = place.backup().manifest
    put(place.stores[0], key_of(manifest), resigned(manifest, machine, plan="other"))
    (problem,) = problems(place)
    assert "its manifest was exchanged" in problem


def test_rolled_back(place: Place) -> None:
    first, second = place.backup().manifest, place.backup().manifest
    data = place.stores[0].read(key_of(second))
    place.stores[0].delete(key_of(second))
    (problem,) = problems(place)
    assert f"snapshot {second.short_id} of 2026-11-01" in problem
    assert "was there and is gone" in problem
    with pytest.raises(IntegrityError, match="is gone"):
        place.repository().resolve("latest")
    assert place.repository().resolve(first.short_id).id == first.id  # a person who knows what they want gets it
    put(place.stores[0], key_of(second), data)
    assert problems(place) == []
    place.stores[0].delete(key_of(first))
    assert len(problems(place)) == 1
    assert place.repository().resolve("latest").id == second.id  # not the newest one that is gone


def test_prune_says_what_it_removes(place: Place, machine: Machine) -> None:
    first, _ = place.backup().manifest, place.backup().manifest
    trust = machine.security().trust
    assert trust is not None
    trust.removed(place.repository().config.id, [first.id])
    assert problems(place) == []  # killed before the first deletion: it is seen anew
    trust.removed(place.repository().config.id, [first.id])
    place.stores[0].delete(key_of(first))
    assert problems(place) == []


def test_a_backup_brings_back_what_is_gone(place: Place) -> None:
    place.stores.append(MemoryStore("offsite"))
    first = place.backup().manifest
    place.stores[0].delete(key_of(first))
    result = place.backup()
    assert result.store_failures.keys() == {"local"}
    assert problems(place) == []
    assert place.backup().complete


def test_accepted(place: Place, machine: Machine, tmp_path: Path) -> None:
    first, second = place.backup().manifest, place.backup().manifest
    trust = machine.security().trust
    assert trust is not None
    place.stores[0].delete(key_of(first))
    put(place.stores[0], key_of(second), resigned(second, Machine(tmp_path / "stranger")))
    assert len(problems(place)) == 2
    for manifest in (first, second):
        trust.accept(place.repository().config.id, manifest.id)
    assert problems(place) == []
    assert problems(place) == []
    by_a_stranger = msgspec.structs.replace(second, signer=Machine(tmp_path / "stranger").key)
    assert place.repository().load(second.id) == by_a_stranger
    put(place.stores[0], key_of(second), resigned(second, Machine(tmp_path / "stranger"), plan="p"))
    assert len(problems(place)) == 1  # once is not for ever


def test_several_machines(place: Place, machine: Machine, tmp_path: Path) -> None:
    """B joins A's repository: B believes what it finds, A has to be told of B."""
    ours = place.backup().manifest
    other = Machine(tmp_path / "other")
    theirs = use(place, other.security()).backup().manifest
    assert problems(place, other) == []
    (problem,) = problems(place, machine)
    assert f"signed by a key that is not trusted, {other.key}" in problem
    told = Machine(machine.state, signers=[other.key])
    assert problems(place, told) == []
    place.stores[0].delete(key_of(theirs))  # pruned by its owner
    assert problems(place, told) == []
    assert "removed by another machine" in told.warnings[-1]
    place.stores[0].delete(key_of(ours))
    assert len(problems(place, told)) == 1


def test_a_stranger_at_first_sight_with_configured_signers(place: Place, machine: Machine, tmp_path: Path) -> None:
    place.backup()
    fresh = Machine(tmp_path / "fresh", signers=[machine.key])
    assert problems(place, fresh) == []
    strict = Machine(tmp_path / "strict", signers=["00" * 32])
    (problem,) = problems(place, strict)
    assert "not trusted" in problem


def unsigned(place: Place) -> Manifest:
    security = place.runtime.security
    manifest = use(place, Security()).backup().manifest
    use(place, security)
    return manifest


def test_unsigned_snapshots_of_earlier_versions(place: Place, tmp_path: Path) -> None:
    old = unsigned(place)
    assert problems(place) == []
    place.backup()
    assert problems(place) == []
    assert place.repository().load(old.id) == old
    late = unsigned(place)
    (problem,) = problems(place)
    assert f"snapshot {late.short_id} is not signed, in a repository that is" in problem
    # Whoever meets the repository now for the first time believes what is there, unless told whom to believe.
    assert problems(place, Machine(tmp_path / "second")) == []
    strict = Machine(tmp_path / "third", signers=[Machine(tmp_path / "state").key])
    assert len(problems(place, strict)) == 2


def test_unsigned_snapshots_are_pinned(place: Place) -> None:
    old = unsigned(place)
    assert problems(place) == []
    put(place.stores[0], key_of(old), resigned(old, None, plan="other"))
    (problem,) = problems(place)
    assert "exchanged" in problem


def test_unsigned_snapshots_are_copied_to_new_stores(place: Place) -> None:
    old = unsigned(place)
    place.backup()
    place.stores.append(MemoryStore("offsite"))
    assert place.backup().complete
    assert place.backup().complete
    assert place.repository(1).load(old.id) == old


def test_a_single_snapshot_at_first_sight(place: Place, tmp_path: Path) -> None:
    """Whom to believe depends on all that there is, and not on what is asked for first."""
    manifest = place.backup().manifest
    fresh = Machine(tmp_path / "fresh")
    repository = Repository.open(place.stores[0], threads=2, security=fresh.security())
    assert repository.load(manifest.id) == manifest
    late = unsigned(place)
    with pytest.raises(IntegrityError, match="not signed"):
        repository.load(late.id)


def test_snapshots_taken_meanwhile_are_not_missing(place: Place) -> None:
    """Another process of this machine commits between our listing and our look at the memory."""

    class Slow(MemoryStore):
        meanwhile: Callable[[], object] | None = None

        def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
            if key.startswith("snapshots/") and (act := self.meanwhile):
                self.meanwhile = None
                act()
            return super().read(key, offset, length)

    slow = Slow("local")
    place.stores = [slow]
    place.backup()
    slow.meanwhile = place.backup
    assert problems(place) == []
    assert len(place.repository().snapshots()[0]) == 2


def test_readers_without_the_right_to_remember(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = place.backup().manifest

    def refused(path: Path, _: bytes) -> None:
        raise SourceError(f"cannot write {path}: Read-only file system")

    monkeypatch.setattr("backupd.trust.write_private", refused)
    reader = Machine(tmp_path / "reader")
    assert problems(place, reader) == []
    assert "is not remembered: cannot write" in reader.warnings[0]
    with pytest.raises(SourceError, match="Read-only"):  # who writes has to be able to
        place.backup()
    monkeypatch.undo()
    assert place.repository().load(manifest.id) == manifest


def test_a_damaged_memory_is_not_taken_for_none(place: Place, machine: Machine) -> None:
    place.backup()
    (memory,) = (machine.state / "trust").glob("*.json")
    assert memory.stat().st_mode & 0o777 == 0o600
    memory.write_bytes(b"{")
    with pytest.raises(SourceError, match="is damaged"):
        place.repository().snapshots()


def test_a_repository_with_an_odd_id(place: Place) -> None:
    place.backup()
    config = msgspec.structs.replace(place.repository().config, id="../../etc/passwd")
    put(place.stores[0], "backupd.json", encode(config))
    with pytest.raises(BackupdError, match="not the id of a repository"):
        place.repository().snapshots()
