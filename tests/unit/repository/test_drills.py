"""Drill records in a repository."""

from __future__ import annotations

from pathlib import Path

import pytest

from backupd.errors import IntegrityError, StoreDenied, StoreUnavailable
from backupd.model import ObjectInfo
from backupd.repository import (
    Repository,
    drills_of,
    keep_drill,
    last_drills,
    layout,
    proven,
)
from backupd.stores.memory import MemoryStore
from tests.support.drills import SNAPSHOT, record
from tests.support.runtime import Place, put


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    place = Place(tmp_path)
    place.root().mkdir(parents=True)
    place.backup()
    return place.repository()


def test_the_newest_counts(repository: Repository, tmp_path: Path) -> None:
    records = [record(1, "failed"), record(2), record(3, "failed", snapshot="ffff456789abcdef")]
    for one in records:
        assert keep_drill(repository, one, tmp_path) is None
    assert drills_of(repository, SNAPSHOT) == [records[1], records[0]]
    found = last_drills(repository)
    assert found.records == {SNAPSHOT: records[1], "ffff456789abcdef": records[2]}
    assert found.damaged == []
    assert proven(repository) == {SNAPSHOT: records[1]}


def test_a_part_is_not_the_whole(repository: Repository, tmp_path: Path) -> None:
    keep_drill(repository, record(missing=["w"]), tmp_path)
    assert proven(repository) == {}


def test_damaged_records_prove_nothing(repository: Repository, tmp_path: Path) -> None:
    one = record()
    keep_drill(repository, one, tmp_path)
    key = layout.drill(SNAPSHOT, one.id)
    put(repository.store, key, repository.store.read(key).replace(b"proven", b"pruven"))
    found = last_drills(repository)
    assert found.records == {}
    assert isinstance(found.damaged[0], IntegrityError)
    assert proven(repository) == {}
    with pytest.raises(IntegrityError):
        drills_of(repository, SNAPSHOT)


def test_a_record_under_another_name(repository: Repository, tmp_path: Path) -> None:
    one = record()
    keep_drill(repository, one, tmp_path)
    data = repository.store.read(layout.drill(SNAPSHOT, one.id))
    repository.store.put(layout.drill("ffff456789abcdef", one.id), data)
    (problem,) = last_drills(repository).damaged
    assert "is the record of another drill" in str(problem)


class ReadOnly(MemoryStore):
    error: type[Exception] = StoreDenied

    def put(self, key: str, data: bytes) -> ObjectInfo:
        raise self.error(f"{key} cannot be written")


def test_a_store_that_takes_nothing(repository: Repository, tmp_path: Path) -> None:
    store = ReadOnly("local")
    refused = Repository(store, repository.config, 2)
    one = record()
    assert "cannot be written" in (keep_drill(refused, one, tmp_path) or "")
    assert proven(refused) == {}
    assert proven(refused, tmp_path) == {SNAPSHOT: one}
    assert drills_of(refused, SNAPSHOT, tmp_path) == [one]
    store.error = StoreUnavailable
    with pytest.raises(StoreUnavailable):
        keep_drill(refused, one, tmp_path)


@pytest.mark.parametrize("key", ["drills/x", "drills/0123/20260101T000000Z-ab.json", f"drills/{SNAPSHOT}/x.json"])
def test_other_keys_are_no_drills(key: str) -> None:
    assert layout.drilled_snapshot(key) is None
