"""Check records in a repository: who is believed, where they are kept."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec import structs
from msgspec.structs import replace

from backupd.errors import IntegrityError, StoreDenied
from backupd.repository import CheckRecord, RecordDoubted, Repository, keep_check, layout, standing_of, standings
from backupd.repository.checks import forget_records, new_check_id
from backupd.repository.documents import encode, signature_of
from backupd.security import Security
from backupd.stores.memory import MemoryStore
from tests.support.keys import Machine, use
from tests.support.runtime import BEGIN, Place, put
from tests.unit.repository.test_standing import check


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "state")


@pytest.fixture
def place(tmp_path: Path, machine: Machine) -> Place:
    place = Place(tmp_path)
    place.root().mkdir(parents=True)
    use(place, machine.security()).backup()
    return place


def record(place: Place, minute: int = 1, **rest: object) -> CheckRecord:
    repository = place.repository()
    (snapshot,) = repository.snapshot_ids()
    found = structs.replace(check(minute, **rest), snapshot=snapshot, repository=repository.config.id)  # type: ignore[arg-type]
    return structs.replace(found, volumes=[structs.replace(found.volumes[0], volume="data")])


def test_kept_and_read(place: Place) -> None:
    one = record(place)
    assert keep_check(place.repository(), one) is None
    assert standing_of(place.repository(), one.snapshot).check == one
    assert standings(place.repository()).get(one.snapshot).state == "good"
    assert standings(place.repository()).get("ffffffffffffffff").state == "unverified"
    assert standings(place.repository(), []).of == {}, "what was not listed is not asked for"


@pytest.mark.parametrize("bad", [["v"], []])
def test_what_a_stranger_says_counts_for_nothing(place: Place, tmp_path: Path, bad: list[str]) -> None:
    """A forged `damaged` would hide the newest snapshot from `latest`, a forged `good` would let prune go on."""
    one = record(place, 5, kind="data", fraction=1.0, bad=bad)
    key = layout.check(one.snapshot, one.id)
    stranger = Machine(tmp_path / "stranger").security()
    assert stranger.signer is not None
    genuine = encode(one, place.runtime.security.signer() if place.runtime.security.signer else None)
    altered = encode(structs.replace(one, program="x"))[: -len('"blake3": "%s"\n}\n' % ("0" * 64))]
    for data, said in (
        (encode(one, stranger.signer()), "a key that is not trusted"),
        (encode(one), "it is not signed"),
        (_with_signature(altered, genuine), "its signature is wrong"),
    ):
        put(place.stores[0], key, data)
        found = standings(place.repository())
        assert found.get(one.snapshot).state == "unverified"
        (problem,) = found.problems
        assert isinstance(problem, RecordDoubted)
        assert said in str(problem)
        assert found.idle == [key], "prune takes it away"
    put(place.stores[0], key, genuine)
    assert standings(place.repository()).get(one.snapshot).state == ("damaged" if bad else "good")


def _with_signature(body: bytes, genuine: bytes) -> bytes:
    from blake3 import blake3  # noqa: PLC0415

    signature = signature_of(genuine)
    assert signature is not None
    body = body.rstrip().rstrip(b",")
    body += b',\n "signer": "%b",\n "signature": "%b"' % (signature.signer.encode(), signature.signature.encode())
    return body + b',\n "blake3": "%b"\n}\n' % blake3(body).hexdigest().encode()


def test_a_signature_under_a_manifest_is_none_under_a_record(place: Place) -> None:
    signer = place.runtime.security.signer
    trust = place.runtime.security.trust
    assert signer is not None
    assert trust is not None
    data = encode(record(place), signer())
    signature = signature_of(data)
    assert signature is not None
    id_ = place.repository().config.id
    assert trust.doubt(id_, signature) is None
    as_manifest = (signature.signer, signer().sign(signature.message), signature.message)
    assert trust.doubt(id_, as_manifest) == "its signature is wrong"


def test_records_of_something_else(place: Place) -> None:
    """One that was copied from another store, where the copy may be sound, or from another snapshot."""
    one = record(place)
    signer = place.runtime.security.signer
    assert signer is not None
    moved = structs.replace(one, repository="ffffffffffffffff")
    place.stores[0].put(layout.check(one.snapshot, one.id), encode(moved, signer()))
    place.stores[0].put(layout.check("ffffffffffffffff", one.id), encode(one, signer()))
    found = standings(place.repository())
    assert found.of == {}
    assert [str(problem).endswith("is the record of something else") for problem in found.problems] == [True, True]


def test_damaged_records(place: Place) -> None:
    one = record(place)
    keep_check(place.repository(), one)
    key = layout.check(one.snapshot, one.id)
    put(place.stores[0], key, place.stores[0].read(key).replace(b"sizes", b"sized"))
    (problem,) = standings(place.repository()).problems
    assert isinstance(problem, IntegrityError)
    assert not isinstance(problem, RecordDoubted)
    assert standing_of(place.repository(), one.snapshot).state == "unverified"


def test_a_clock_that_was_set_back(place: Place) -> None:
    one = record(place, 50, kind="data", fraction=1.0)
    keep_check(place.repository(), one)
    later = new_check_id(place.repository(), one.snapshot, BEGIN, "abcdef0123456789")
    assert later > one.id
    assert layout.checked_snapshot(layout.check(one.snapshot, later)) == one.snapshot


class ReadOnly(MemoryStore):
    def put(self, key: str, data: bytes):  # type: ignore[no-untyped-def]
        raise StoreDenied(f"{key} cannot be written")


def test_a_store_that_takes_nothing(place: Place, machine: Machine, tmp_path: Path) -> None:
    one = record(place)
    denying = ReadOnly("local")
    config = place.repository().config
    security = replace(machine.security(), records=tmp_path / "records")
    with pytest.raises(StoreDenied):
        keep_check(Repository(denying, config, 2, machine.security()), one)
    repository = Repository(denying, config, 2, security)
    assert "cannot be written" in (keep_check(repository, one) or "")
    assert standing_of(repository, one.snapshot).check == one
    assert standings(repository, []).get(one.snapshot).check == one
    forget_records(repository, ["0000000000000000"])
    assert standing_of(repository, one.snapshot).check == one
    forget_records(repository, [one.snapshot])
    assert standing_of(repository, one.snapshot).state == "unverified"


def test_where_nobody_signs_everybody_is_believed(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.root().mkdir(parents=True)
    place.backup()
    keep_check(place.repository(), record(place))
    assert place.runtime.security == Security()
    assert standings(place.repository()).get(record(place).snapshot).state == "good"


@pytest.mark.parametrize("key", ["checks/x", "checks/0123/20260101T000000Z-ab.json", "checks/0123456789abcdef/x.json"])
def test_other_keys_are_no_checks(key: str) -> None:
    assert layout.checked_snapshot(key) is None
