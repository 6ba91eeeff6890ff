"""What is written into a store for a lease, and what is found there of others'."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated, Literal

import msgspec
from msgspec import Struct

from backupd.errors import ObjectNotFound
from backupd.malformed import MALFORMED
from backupd.model import AwareTime, ObjectInfo, require_possible
from backupd.ports import Store
from backupd.repository import layout
from backupd.repository.documents import is_whole, seal

Kind = Literal["shared", "exclusive"]

DURATION = timedelta(minutes=15)
"""How long a lease runs from when it was written or renewed. It is renewed three times as often."""


class Holder(Struct, frozen=True):
    """Who asks for a lease."""

    host: str
    program: str
    process: int


class Document(Struct, frozen=True, kw_only=True):
    """A lease as stored. `begun` and `until` are the holder's clock, for people; `seconds` is what counts.

    `released`: the holder is done, but may not delete.
    """

    format: int = 1
    kind: Kind
    operation: str
    host: str
    program: str
    process: int
    begun: AwareTime
    until: AwareTime
    seconds: Annotated[int, msgspec.Meta(ge=0, le=7 * 24 * 60 * 60)]
    released: bool = False

    def __post_init__(self) -> None:
        require_possible(self.begun, self.until)


_DECODER = msgspec.json.Decoder(Document)


def encode(document: Document) -> bytes:
    """As stored."""
    return seal(msgspec.json.encode(document))


def _decode(data: bytes) -> Document:
    """One of MALFORMED if it is not what was written."""
    if not is_whole(data):
        raise msgspec.DecodeError("its hash of itself is wrong")
    return _DECODER.decode(data)


class Standing(Struct, frozen=True):
    """A lease that was found in a store: its objects, and what the newest of them says.

    `modified` is when that was written, by the store's clock. `document` None: it cannot be read, so it may be any.
    """

    id: str
    keys: tuple[str, ...]
    modified: datetime | None
    document: Document | None
    vanished: bool = False

    @property
    def exclusive(self) -> bool:
        """Whether it tolerates no other."""
        return self.document is None or self.document.kind == "exclusive"

    def expired(self, store_now: datetime | None, own_now: datetime) -> bool:
        """Whether it has run out, by the store's clock where it has one.

        An exclusive one has to be so for as long again: its holder stops by itself when it has run out.
        """
        length = timedelta(seconds=self.document.seconds) if self.document else DURATION
        grace = length if self.exclusive else timedelta()
        if self.modified is not None and store_now is not None:
            return self.modified + length + grace <= store_now
        return self.document is not None and self.document.until + grace <= own_now

    def __str__(self) -> str:
        if self.document is None:
            return f"a lease that cannot be read ({self.keys[-1]})"
        said = self.document
        return (
            f"{said.operation} by {said.program} on {said.host} (process {said.process}), since"
            f" {said.begun:%Y-%m-%d %H:%M:%S} and at least until {said.until:%H:%M:%S} UTC"
        )


def problem_with_lease(store: Store, key: str) -> str | None:
    """Why the lease under a key cannot be read; None if it can, or is gone."""
    if layout.lease_of(key) is None:
        return f"{store.name}: {key} is not the name of a lease"
    try:
        _decode(store.read(key))
    except ObjectNotFound:
        return None
    except MALFORMED as exc:
        return f"{store.name}: {key} is not what was written: {exc}"
    return None


_LOOKS = 5


def standing(store: Store) -> list[Standing]:
    """Every lease of the store, released ones left out.

    One that vanishes between listing and reading was released, or renewed under its next number: so all are listed
    again. One that vanishes every time is taken for one that cannot be read.
    """
    for remaining in reversed(range(_LOOKS)):
        found = [_read(store, lease_id, infos) for lease_id, infos in _listed(store).items()]
        if not remaining or not any(lease.vanished for lease in found):
            break
    return [lease for lease in found if lease.document is None or not lease.document.released]


def _listed(store: Store) -> dict[str, list[ObjectInfo]]:
    """The objects of each lease, the newest last."""
    groups: dict[str, list[tuple[int, ObjectInfo]]] = {}
    for info in store.list(layout.LEASES):
        named = layout.lease_of(info.key)
        if named is not None:
            groups.setdefault(named[0], []).append((named[1], info))
    return {
        lease_id: [info for _, info in sorted(members, key=lambda member: member[0])]
        for lease_id, members in groups.items()
    }


def _read(store: Store, lease_id: str, infos: Sequence[ObjectInfo]) -> Standing:
    document, vanished = None, False
    try:
        document = _decode(store.read(infos[-1].key))
    except ObjectNotFound:
        vanished = True
    except MALFORMED:
        pass
    return Standing(lease_id, tuple(info.key for info in infos), infos[-1].modified, document, vanished)
