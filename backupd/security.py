"""The keys that an operation has, and what it believes of a repository: all that a Repository needs to be told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Self

from msgspec import Struct
from msgspec.structs import replace

from backupd.crypto import Identities, Recipients, SigningKey
from backupd.errors import KeyMissing
from backupd.indexcache import IndexCache
from backupd.trust import Trust


def no_identities() -> Identities:
    """What there is to decrypt with where nobody has named an identity."""
    raise KeyMissing("this snapshot is encrypted, and there is no identity to read it with")


class Security(Struct, frozen=True):
    """By default nothing is encrypted, nothing can be decrypted, nothing is signed and every manifest is believed.

    New snapshots are for `recipients`. `identities` makes the secret keys when they are first needed, which may mean
    asking a person, and raises KeyMissing. `signer` makes this machine's own key; `machine` is its public half, None
    before there is one. `records` is where this machine keeps records about snapshots that a store does not take.
    """

    recipients: Recipients | None = None
    identities: Callable[[], Identities] = no_identities
    signer: Callable[[], SigningKey] | None = None
    machine: Callable[[], str | None] = lambda: None
    trust: Trust | None = None
    indexes: IndexCache | None = None
    records: Path | None = None

    @property
    def has_identity(self) -> bool:
        """Whether somebody has named an identity. It may yet turn out to be none, or the wrong one."""
        return self.identities is not no_identities

    @property
    def keys(self) -> tuple[str, ...]:
        """The public keys that new snapshots are for."""
        return self.recipients.keys if self.recipients else ()

    def at_least_for(self, keys: list[str]) -> Self:
        """The same; where nothing would be encrypted, it is for these public keys."""
        return self if self.recipients or not keys else replace(self, recipients=Recipients(keys))
