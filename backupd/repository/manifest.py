"""The documents of a repository: its own (`backupd.json`) and one manifest a snapshot (docs/FORMAT.md)."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, Literal, TypeVar

import msgspec
from blake3 import blake3

from backupd.archive import ChunkerParameters
from backupd.errors import IntegrityError, RepositoryError
from backupd.model import Tool, Volume

FORMAT = 1

Reason = Literal["backup", "safety", "import"]


class RepositoryConfig(msgspec.Struct, frozen=True, kw_only=True):
    """`backupd.json`: what makes a store a repository. Written once."""

    format: int = FORMAT
    id: str
    created: datetime
    chunker: ChunkerParameters


class ObjectRef(msgspec.Struct, frozen=True, kw_only=True):
    """An object that a snapshot needs: its key, size in bytes and BLAKE3-256 in hex, all as stored."""

    key: str
    size: int
    blake3: str


class Base(msgspec.Struct, frozen=True, kw_only=True):
    """The full archive that a chain of incremental ones began with."""

    snapshot: str
    time: datetime


class Archive(msgspec.Struct, frozen=True, kw_only=True):
    """One volume in a snapshot.

    `needs` lists every data object that the index refers to, the archive's own first if it stored anything.
    `plain_size` is the length of the tar stream, `new_size` what of it was new, `stored_size` what that took in the
    store, all in bytes. `features` names what the stream needs of the tar that extracts it (TarWalker).
    """

    volume: str
    full: bool
    base: Base
    parent: str | None
    source: Volume
    tool: Tool | None
    consistency: str
    started: datetime
    finished: datetime
    plain_size: int
    new_size: int
    stored_size: int
    chunks: int
    members: int
    features: list[str]
    warning_count: int = 0
    warnings: list[str] = []
    index: ObjectRef
    files: ObjectRef
    needs: list[ObjectRef]

    @property
    def objects(self) -> list[ObjectRef]:
        """Everything that a restore of this archive reads."""
        return [*self.needs, self.index, self.files]


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """A volume of the plan that is not in the snapshot. An absent optional volume is noted, not failed."""

    volume: str
    error: str
    optional: bool = False


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot. Written last: that it is there says that all it refers to is stored."""

    format: int = FORMAT
    id: str
    time: datetime
    finished: datetime
    plan: str
    reason: Reason = "backup"
    host: str
    program: str
    archives: list[Archive]
    failures: list[Failure] = []

    def archive(self, volume: str) -> Archive | None:
        """The archive of a volume, or None."""
        return next((archive for archive in self.archives if archive.volume == volume), None)

    @property
    def complete(self) -> bool:
        """Whether every volume that had to be in it is."""
        return all(failure.optional for failure in self.failures)

    @property
    def short_id(self) -> str:
        """The id as it is shown."""
        return self.id[:8]

    @property
    def new_stored_size(self) -> int:
        """Bytes that this snapshot added to the store, indexes and file lists included."""
        return sum(archive.stored_size + archive.index.size + archive.files.size for archive in self.archives)


# The last member of a stored document, `blake3`: the hash of all bytes before the comma that it follows.
_SEAL = re.compile(rb',\n "blake3": "([0-9a-f]{64})"\n\}\n')
_SEAL_SIZE = len(',\n "blake3": ""\n}\n') + 64


def encode(document: RepositoryConfig | Manifest) -> bytes:
    """As stored: JSON that a person can read, sealed with a hash of itself."""
    body = msgspec.json.format(msgspec.json.encode(document), indent=1).removesuffix(b"\n}")
    return b'%b,\n "blake3": "%b"\n}\n' % (body, blake3(body).hexdigest().encode())


_T = TypeVar("_T", RepositoryConfig, Manifest)


class _Versioned(msgspec.Struct):
    format: int


# Made on import, and not at the first use: msgspec prepares a type for decoding when it first meets it, and a process
# whose threads do that at the same time dies of a segmentation fault (msgspec 0.22).
_VERSION = msgspec.json.Decoder(_Versioned)
_DECODERS: dict[type, msgspec.json.Decoder[Any]] = {
    kind: msgspec.json.Decoder(kind) for kind in (RepositoryConfig, Manifest)
}


def decode(data: bytes, kind: type[_T], key: str) -> _T:
    """A stored document; RepositoryError if a later version wrote it, IntegrityError if it is not what it should be.

    Fields that are not known are left alone. The seal is that of every format.
    """
    seal = _SEAL.fullmatch(data, max(0, len(data) - _SEAL_SIZE))
    if seal is None or blake3(data[: seal.start()]).hexdigest().encode() != seal[1]:
        raise IntegrityError(f"{key} is damaged: it is not what was written")
    try:
        version = _VERSION.decode(data).format
        if version > FORMAT:
            raise RepositoryError(
                f"{key} is of format {version}, and this backupd reads format {FORMAT}",
                hint="a newer backupd wrote it: use that version",
            )
        document: _T = _DECODERS[kind].decode(data)
        return document
    except msgspec.DecodeError as exc:
        raise IntegrityError(f"{key} is damaged: {exc}") from exc
