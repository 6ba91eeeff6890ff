"""A volume that was backed up into two stores, signed, in chunks so small that little data make many of them."""

from __future__ import annotations

import random
from pathlib import Path

from backupd.archive import ChunkerParameters
from backupd.repository import Repository
from backupd.stores.memory import MemoryStore
from tests.support.keys import Machine, use
from tests.support.runtime import Place

SMALL = ChunkerParameters(minimum=4096, average=16384, maximum=65536)


def two_stores(tmp_path: Path, file_bytes: int) -> Place:
    """Two snapshots, each with one random file of so many bytes more; this machine remembers which there were."""
    place = Place(tmp_path, stores=[MemoryStore("one"), MemoryStore("two")])
    place.root().mkdir(parents=True)
    for store in place.stores:
        Repository.open_or_create(store, threads=2, now=place.clock.now(), new_id=place.runtime.new_id, chunker=SMALL)
    use(place, Machine(tmp_path / "state").security())
    for number in range(2):
        (place.root() / f"f{number}").write_bytes(random.Random(number).randbytes(file_bytes))
        place.backup()
    return place
