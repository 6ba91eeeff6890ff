"""What every repository carries so that its data can be had without backupd: `recover.py` and `RECOVERY.md`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from importlib import resources

from backupd.errors import ObjectExists, ObjectNotFound, StoreDenied
from backupd.ports import Store

SCRIPT = "recover.py"
GUIDE = "RECOVERY.md"

_VERSION = re.compile(rb"backupd-recover (\d+)")


def install(store: Store, note: Callable[[str], None]) -> None:
    """Write both into a repository, unless they are there in this or a later version.

    They are the only objects that are ever exchanged. Where a store lets nothing be deleted, older ones stay. One of
    this version that is not as it should be is exchanged, too: somebody may have made it do something else.
    """
    for key in (SCRIPT, GUIDE):
        ours = _ours(key)
        try:
            theirs = store.read(key)
        except ObjectNotFound:
            theirs = b""
        if theirs == ours or _version(theirs) > _version(ours):
            continue
        try:
            if theirs:
                if _version(theirs) == _version(ours):
                    note(f"store {store.name}: {key} had been altered, and is written again")
                store.delete(key)
            store.put(key, ours)
        except StoreDenied as exc:
            note(f"store {store.name}: an older or altered {key} stays: {exc}")
        except ObjectExists:  # another backupd was faster
            continue


def altered(store: Store) -> Iterator[str]:
    """What is wrong with those of a repository: missing, or not as this version of backupd writes them."""
    for key in (SCRIPT, GUIDE):
        ours = _ours(key)
        try:
            theirs = store.read(key)
        except ObjectNotFound:
            yield f"{store.name}: {key} is missing"
            continue
        if theirs != ours and _version(theirs) in {0, _version(ours)}:
            yield f"{store.name}: {key} is not what was written"


def _ours(key: str) -> bytes:
    return resources.files(__package__).joinpath(key).read_bytes()


def _version(content: bytes) -> int:
    found = _VERSION.search(content[:200])
    return int(found[1]) if found else 0
