"""The documents of a repository: its own (`backupd.json`) and one manifest a snapshot (docs/FORMAT.md).

How they are stored is in `documents`.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from backupd.archive import ChunkerParameters
from backupd.model import AwareTime, Tool, Volume, require_possible

FORMAT = 2
"""The highest format that this program reads. What is not encrypted is written in format 1."""

Reason = Literal["backup", "safety", "import"]


class RepositoryConfig(msgspec.Struct, frozen=True, kw_only=True):
    """`backupd.json`: what makes a store a repository. Written once."""

    format: int = 1
    id: str
    created: AwareTime
    chunker: ChunkerParameters


class ObjectRef(msgspec.Struct, frozen=True, kw_only=True):
    """An object that a snapshot needs: its key, size in bytes and BLAKE3-256 in hex, all as stored."""

    key: str
    size: int
    blake3: str


class Base(msgspec.Struct, frozen=True, kw_only=True):
    """The full archive that a chain of incremental ones began with."""

    snapshot: str
    time: AwareTime


class Archive(msgspec.Struct, frozen=True, kw_only=True):
    """One volume in a snapshot.

    `needs` lists every data object that the index refers to, the archive's own first if it stored anything.
    `plain_size` is the length of the tar stream, `new_size` what of it was new, `stored_size` what that took in the
    store, all in bytes. `features` names what the stream needs of the tar that extracts it (TarWalker). `moment` is the
    one that the data are of, None if they were read while they could be written; `downtime` is how many seconds each
    container stood for it; `trouble` is what went wrong all the same, services that did not go on above all.
    """

    volume: str
    full: bool
    base: Base
    parent: str | None
    source: Volume
    tool: Tool | None
    consistency: str
    started: AwareTime
    finished: AwareTime
    plain_size: int
    new_size: int
    stored_size: int
    chunks: int
    members: int
    features: list[str]
    warning_count: int = 0
    warnings: list[str] = []
    moment: AwareTime | None = None
    downtime: dict[str, float] = {}
    trouble: list[str] = []
    index: ObjectRef
    files: ObjectRef
    needs: list[ObjectRef]

    @property
    def objects(self) -> list[ObjectRef]:
        """Everything that a restore of this archive reads."""
        return [*self.needs, self.index, self.files]

    @property
    def has_acls(self) -> bool:
        """Whether there are ACLs in tar's own form and no other; see `Engine.tar_in`.

        Where backupd read the volume, earlier versions had tar write both, and the attributes are the better ones.
        """
        return "acl" in self.features and self.tool is None


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """A volume of the plan that is not in the snapshot. An absent optional volume is noted, not failed."""

    volume: str
    error: str
    optional: bool = False


class Encryption(msgspec.Struct, frozen=True, kw_only=True):
    """Whom a snapshot is encrypted for: public keys in canonical form.

    `private` is the part of the manifest that only they can read, an age file in base64; None once it has been opened.
    """

    recipients: list[str]
    private: str | None = None


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot. Written last: that it is there says that all it refers to is stored.

    `moment` is the one that all archives are of, where the plan asks for that. `part`: of volumes that somebody named,
    and not of the plan as a whole. `signer` is the public key of the machine that signed it, None if nobody did; it is
    known once the document was stored and read.
    """

    format: int = 1
    id: str
    time: AwareTime
    finished: AwareTime
    plan: str
    reason: Reason = "backup"
    host: str
    program: str
    archives: list[Archive]
    failures: list[Failure] = []
    moment: AwareTime | None = None
    trouble: list[str] = []
    part: bool = False
    encryption: Encryption | None = None
    signer: str | None = None

    def __post_init__(self) -> None:
        require_possible(self.time, self.finished, self.moment)
        for archive in self.archives:
            require_possible(archive.started, archive.finished, archive.moment, archive.base.time)

    def archive(self, volume: str) -> Archive | None:
        """The archive of a volume, or None."""
        return next((archive for archive in self.archives if archive.volume == volume), None)

    @property
    def volumes(self) -> frozenset[str]:
        """The volumes that are in it."""
        return frozenset(archive.volume for archive in self.archives)

    @property
    def complete(self) -> bool:
        """Whether every volume that had to be in it is."""
        return all(failure.optional for failure in self.failures)

    @property
    def all_trouble(self) -> list[str]:
        """What went wrong although the data are good, each once."""
        found = [*self.trouble, *(text for archive in self.archives for text in archive.trouble)]
        return list(dict.fromkeys(found))

    def is_run_of(self, plan: str, machine: str | None) -> bool:
        """Whether it is a backup of that plan, as a whole, by the machine with that key; None: by any (decision 52)."""
        return self.plan == plan and self.reason == "backup" and not self.part and self.is_by(machine)

    def is_by(self, machine: str | None) -> bool:
        """Whether the machine with that key took it; None: whether any did."""
        return machine in (None, self.signer)

    def is_success_of(self, plan: str, machine: str | None) -> bool:
        """The same, and it did all it should."""
        return self.is_run_of(plan, machine) and self.complete and not self.all_trouble

    @property
    def short_id(self) -> str:
        """The id as it is shown."""
        return self.id[:8]

    @property
    def new_stored_size(self) -> int:
        """Bytes that this snapshot added to the store, indexes and file lists included."""
        return sum(archive.stored_size + archive.index.size + archive.files.size for archive in self.archives)

    @property
    def hidden(self) -> bool:
        """Whether a part of it is encrypted and was not opened: `HIDDEN` stands for what is in there."""
        return self.encryption is not None and self.encryption.private is not None


HIDDEN = "(encrypted)"
