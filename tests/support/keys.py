"""Keys and trust for tests, and the programs that others use with the same formats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
from msgspec.structs import replace

from backupd.crypto import Identities, PassphraseNeeded, Recipients, new_identity, parse_identities
from backupd.indexcache import IndexCache
from backupd.security import Security, no_identities
from backupd.signingkey import OwnKey
from backupd.trust import Trust
from tests.support.apt import NotInstallable, install
from tests.support.runtime import Place


def nobody() -> str:
    raise PassphraseNeeded("nobody was to be asked")


@dataclass(frozen=True)
class Pair:
    """A secret key, as a file has it, and the public one."""

    secret: str
    public: str

    @property
    def identities(self) -> Identities:
        return parse_identities(self.secret.encode(), "test key", nobody)


def pair() -> Pair:
    return Pair(*new_identity(datetime(2026, 11, 1, tzinfo=UTC)))


@dataclass
class Machine:
    """What one machine has in its state directory."""

    state: Path
    signers: Sequence[str] = ()
    warnings: list[str] = field(default_factory=list)

    @property
    def key(self) -> str:
        return OwnKey(self.state)().public

    def security(self, recipients: Sequence[str] = (), secret: Pair | None = None) -> Security:
        own = OwnKey(self.state)
        return Security(
            recipients=Recipients(recipients) if recipients else None,
            identities=(lambda: secret.identities) if secret else no_identities,
            signer=own,
            machine=own.public,
            trust=Trust(self.state, self.signers, own.public, self.warnings.append),
            indexes=IndexCache(self.state),
        )


def use(place: Place, security: Security) -> Place:
    """From now on operations at this place have these keys."""
    place.runtime = replace(place.runtime, security=security)
    return place


def need(*packages: str) -> None:
    """Debian's packages whose programs have the same names; skips the test where they cannot be had."""
    try:
        install(*packages)
    except NotInstallable as exc:
        pytest.skip(f"{', '.join(packages)}: {exc}")
