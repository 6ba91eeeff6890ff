"""This machine's own signing key: `signing.key` in the state directory, made when it is first needed."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from backupd.crypto import SigningKey
from backupd.errors import ConfigError, SourceError
from backupd.statefile import locked, read_private, write_private

_NAME = "signing.key"
_TITLE = "# backupd: the secret key by which this machine signs its snapshots. Not for other eyes."


class OwnKey:
    """Call it for the key. Whoever has it can sign in this machine's name, so others must not be able to read it."""

    def __init__(self, state: Path) -> None:
        self._path = state / _NAME
        self._key: SigningKey | None = None

    def __call__(self) -> SigningKey:
        """The key, made if there is none."""
        if self._key is None:
            with locked(self._path):
                found = self._read()
                if found is None:
                    self._key = SigningKey.generate()
                    lines = _TITLE, f"public {self._key.public}", f"secret {self._key.seed.hex()}", ""
                    write_private(self._path, "\n".join(lines).encode())
                else:
                    self._key = SigningKey(bytes.fromhex(found["secret"]))
        return self._key

    def public(self) -> str | None:
        """The public key, None if there is no key yet."""
        found = self._read()
        return found["public"] if found else None

    def _read(self) -> dict[str, str] | None:
        data = read_private(self._path)
        if data is None:
            return None
        try:
            mode = stat.S_IMODE(os.stat(self._path).st_mode)  # noqa: PTH116
        except OSError as exc:
            raise SourceError(f"cannot read {self._path}: {exc.strerror}") from exc
        if mode & 0o077:
            raise ConfigError(f"{self._path} can be read by others (mode {mode:03o})", hint=f"chmod 600 {self._path}")
        words = [line.split() for line in data.decode(errors="replace").splitlines() if not line.startswith("#")]
        found = {pair[0]: pair[1] for pair in words if len(pair) == 2 and len(pair[1]) == 64}
        try:
            if {*found} != {"public", "secret"} or not all(map(bytes.fromhex, found.values())):
                raise ValueError
        except ValueError:
            raise ConfigError(
                f"{self._path} is not a signing key",
                hint="restore it; or move it away, and name the public key of the new one to whoever trusted the old",
            ) from None
        return found
