"""The secret key that a command is given: where it is, and the passphrase that may be before it."""

from __future__ import annotations

import getpass
from collections.abc import Callable, Mapping
from pathlib import Path

from backupd.crypto import Identities, PassphraseNeeded, parse_identities
from backupd.errors import KeyMissing
from backupd.settings import PASSPHRASE_VARIABLE


def identity_loader(path: Path, environment: Mapping[str, str], *, interactive: bool) -> Callable[[], Identities]:
    """Reads the identity file when it is first needed, and only once; KeyMissing if it is none.

    The passphrase comes from the file that BACKUPD_IDENTITY_PASSPHRASE_FILE names, else from a person.
    """
    loaded: list[Identities] = []

    def ask() -> str:
        if named := environment.get(PASSPHRASE_VARIABLE):
            return _read(Path(named)).decode(errors="replace").removesuffix("\n").removesuffix("\r")
        if not interactive:
            raise PassphraseNeeded(f"{path} is protected by a passphrase, and nobody is there to give it")
        return getpass.getpass(f"Passphrase of {path}: ")

    def load() -> Identities:
        if not loaded:
            loaded.append(parse_identities(_read(path), str(path), ask))
        return loaded[0]

    return load


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise KeyMissing(f"cannot read {path}: {exc.strerror}") from exc
