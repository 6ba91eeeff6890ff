"""Copies of the newest indexes, so that a machine without the secret key can build on what it has encrypted.

    <state>/indexes/<SHA-256 of the volume's name, first digits>/<BLAKE3 of the encrypted object>

A copy is the index before encryption: chunk hashes and lengths, no names and no contents. It never leaves the machine,
is legible to its owner alone, and can be lost: then the next archive is a full one.
"""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path

from backupd.errors import IntegrityError, SourceError
from backupd.statefile import read_private, write_private

# Stores may lag behind each other, and plans may share a volume.
_KEPT = 4
_BLAKE3 = re.compile(r"[0-9a-f]{64}")


class IndexCache:
    """Some 16 MB for each TB of a volume, four times."""

    def __init__(self, state: Path) -> None:
        self._root = state / "indexes"

    def get(self, volume: str, blake3: str) -> bytes | None:
        """The index whose encrypted object has that hash, if it is here."""
        return read_private(self._path(volume, blake3))

    def keep(self, volume: str, blake3: str, index: bytes) -> None:
        """Remember an index, and forget the oldest of its volume."""
        path = self._path(volume, blake3)
        write_private(path, index)
        try:
            there = sorted((entry.stat().st_mtime_ns, entry) for entry in path.parent.iterdir() if entry != path)
            for _, entry in there[: max(0, len(there) + 1 - _KEPT)]:
                entry.unlink(missing_ok=True)
        except OSError as exc:
            raise SourceError(f"cannot clear {path.parent}: {exc.strerror}") from exc

    def _path(self, volume: str, blake3: str) -> Path:
        # Both may come from a manifest that somebody has forged.
        if not _BLAKE3.fullmatch(blake3):
            raise IntegrityError("an index has a hash that is none")
        return self._root / sha256(volume.encode()).hexdigest()[:16] / blake3
