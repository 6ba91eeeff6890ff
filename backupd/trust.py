"""What this machine knows of repositories, by which forged, altered and missing snapshots are noticed.

    <state>/trust/<repository id>.json       the signers whose snapshots are believed, and every snapshot that was seen

Where no signers are configured, those that are there when a repository is first met are believed from then on. A
manifest that was seen once must stay as it is, and must stay.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import msgspec
from msgspec import Struct, field

from backupd.crypto import RECORD_CONTEXT, signature_holds
from backupd.errors import BackupdError, IntegrityError, SourceError
from backupd.malformed import MALFORMED
from backupd.model import AwareTime, require_possible
from backupd.statefile import locked, read_private, write_private

_ID = re.compile(r"[0-9A-Za-z]{1,64}")
_TRUST_HINT = "if another machine of yours wrote it, add its key (`backupd trust` there) to trust.signers"
_ACCEPT_HINT = "if that is as it should be: `backupd trust --accept {}`"


class Seen(Struct, frozen=True):
    """A snapshot that was seen: BLAKE3 of its manifest, its signer and when it was taken.

    The signer is "" for one that nobody signed, or that a person has accepted as it is.
    """

    digest: str
    signer: str
    time: AwareTime

    def __post_init__(self) -> None:
        require_possible(self.time)


class Record(Struct, frozen=True):
    """What is known of one repository. `signers` is in hex; `accepted` are ids whose next sight is to be believed."""

    signers: list[str] = []
    snapshots: dict[str, Seen] = {}
    accepted: list[str] = []


class Candidate(NamedTuple):
    """A manifest as it was found. `signature` is (signer, signature, message), None if it carries none."""

    id: str
    digest: str
    time: datetime
    signature: tuple[str, str, bytes] | None


class Judgement(Struct, frozen=True):
    """What is wrong with manifests, by id, and which snapshots are known that are not there."""

    refused: dict[str, IntegrityError] = field(default_factory=dict)
    missing: dict[str, Seen] = field(default_factory=dict)


# Made on import, as in `repository.documents`.
_RECORD = msgspec.json.Decoder(Record)


class Trust:
    """`configured` are the signers that the configuration names; with any, nobody else but this machine is believed.

    `own` is this machine's public key, if it has one. `warn` is told what is no error. Safe for several processes.
    """

    def __init__(
        self,
        state: Path,
        configured: Collection[str],
        own: Callable[[], str | None],
        warn: Callable[[str], None],
    ) -> None:
        self._directory = state / "trust"
        self._configured = frozenset(configured)
        self._own = own
        self._warn = warn

    def knows(self, repository: str) -> bool:
        """Whether the repository was met before. If not, the first judgement should be of all its snapshots."""
        return self._read(repository) is not None

    def record(self, repository: str) -> Record:
        """What is known of it."""
        return self._read(repository) or Record()

    def believed(self, repository: str) -> frozenset[str]:
        """Whose signatures count there."""
        return self._believed(self.record(repository))

    def judge(self, repository: str, found: Sequence[Candidate], before: Record | None = None) -> Judgement:
        """Judge manifests, and remember those that are believed.

        If these are all that there are, `before` is the record as it was before they were listed: what was known by
        then has to be among them.
        """
        known = self._read(repository)
        record = known or Record()
        believed = self._believed(record)
        unsigned_pass = not record.signers and not self._configured
        if known is None and not self._configured:
            believed |= {one.signature[0] for one in found if one.signature and _holds(one)}
        judgement = Judgement()
        fresh: dict[str, Seen] = {}
        for one in found:
            problem = _problem(one, record, believed, unsigned_pass=unsigned_pass)
            if problem is not None:
                judgement.refused[one.id] = problem
            elif one.id not in record.snapshots:
                fresh[one.id] = Seen(one.digest, "", one.time) if one.id in record.accepted else _seen(one)
        if known is None or fresh:
            self._learn(repository, fresh)
        if before is not None:
            judgement.missing.update(self._missing(repository, before.snapshots.keys() - {one.id for one in found}))
        return judgement

    def committed(self, repository: str, one: Candidate) -> None:
        """This machine has written that manifest: it and its signer are believed. SourceError if it can't be noted."""
        self._change(repository, lambda record: _with(record, {one.id: _seen(one)}))

    def doubt(self, repository: str, signature: tuple[str, str, bytes] | None) -> str | None:
        """Why a record about a snapshot (a check, a drill) is not believed, in words; None if it is.

        As with manifests: unsigned ones are believed where no signer is known.
        """
        record = self.record(repository)
        if signature is None:
            return "it is not signed" if record.signers or self._configured else None
        if signature[0] not in self._believed(record):
            return f"it is signed by a key that is not trusted, {signature[0]}"
        return None if signature_holds(*signature, RECORD_CONTEXT) else "its signature is wrong"

    def removed(self, repository: str, snapshots: Iterable[str]) -> None:
        """Forget snapshots that are about to be deleted on purpose. Call it before the first of them goes.

        Should the process die in between, what is still there is simply seen anew.
        """
        gone = set(snapshots)

        def without(record: Record) -> Record:
            return Record(
                record.signers,
                {key: seen for key, seen in record.snapshots.items() if key not in gone},
                record.accepted,
            )

        self._change(repository, without)

    def accept(self, repository: str, snapshot: str) -> None:
        """From now on this snapshot is right as it is found next, whoever signed it, or if it is not found."""
        self.removed(repository, [snapshot])
        self._change(
            repository,
            lambda record: Record(record.signers, record.snapshots, sorted({*record.accepted, snapshot})),
        )

    def _believed(self, record: Record) -> frozenset[str]:
        own = self._own()
        return (self._configured or frozenset(record.signers)) | ({own} if own else frozenset())

    def _missing(self, repository: str, gone: set[str]) -> dict[str, Seen]:
        """Known snapshots that are not there. Another machine may have pruned its own; ours only we prune."""
        if not gone:
            return {}
        record = self.record(repository)  # read again: a prune beside us may have told it just now
        own = self._own()
        missing = {key: seen for key, seen in record.snapshots.items() if key in gone}
        others = [key for key, seen in missing.items() if seen.signer not in ("", own)]
        if others:
            self._warn(f"removed by another machine: {', '.join(key[:8] for key in sorted(others))}")
            self.removed(repository, others)
        return {key: seen for key, seen in missing.items() if key not in others}

    def _learn(self, repository: str, fresh: dict[str, Seen]) -> None:
        """Remember what was seen. Someone who only reads may have no right to, and reads all the same."""
        try:
            self._change(repository, lambda record: _with(record, fresh))
        except SourceError as exc:
            self._warn(f"what was seen of the repository's snapshots is not remembered: {exc}")

    def _path(self, repository: str) -> Path:
        if not _ID.fullmatch(repository):
            raise IntegrityError(f"{repository!r} is not the id of a repository")
        return self._directory / f"{repository}.json"

    def _read(self, repository: str) -> Record | None:
        path = self._path(repository)
        data = read_private(path)
        try:
            return None if data is None else _RECORD.decode(data)
        except MALFORMED as exc:
            raise SourceError(
                f"{path} is damaged: {exc}", hint="restore it; without it, whatever the repository holds is believed"
            ) from exc

    def _change(self, repository: str, change: Callable[[Record], Record]) -> None:
        path = self._path(repository)
        with locked(path):
            write_private(path, msgspec.json.encode(change(self._read(repository) or Record())))


def _with(record: Record, fresh: dict[str, Seen]) -> Record:
    signers = {*record.signers, *(seen.signer for seen in fresh.values() if seen.signer)}
    accepted = [key for key in record.accepted if key not in fresh]
    return Record(sorted(signers), record.snapshots | fresh, accepted)


def _seen(one: Candidate) -> Seen:
    return Seen(one.digest, one.signature[0] if one.signature else "", one.time)


def _holds(one: Candidate) -> bool:
    return one.signature is not None and signature_holds(*one.signature)


def _problem(one: Candidate, record: Record, believed: frozenset[str], *, unsigned_pass: bool) -> IntegrityError | None:
    """Why a manifest is not believed; None if it is. One that was seen before, bit by bit, is not checked again."""
    name = f"snapshot {one.id[:8]}"
    hint = _ACCEPT_HINT.format(one.id[:8])
    seen = record.snapshots.get(one.id)
    if seen is not None and seen.digest != one.digest:
        return IntegrityError(f"{name} is not the one that this machine knows: its manifest was exchanged", hint=hint)
    if one.id in record.accepted or (seen is not None and seen.signer == ""):
        return None
    if one.signature is None:
        return None if unsigned_pass else IntegrityError(f"{name} is not signed, in a repository that is", hint=hint)
    if seen is None and not _holds(one):
        return IntegrityError(f"{name} is forged or altered: its signature is wrong")
    if one.signature[0] not in believed:
        return IntegrityError(f"{name} is signed by a key that is not trusted, {one.signature[0]}", hint=_TRUST_HINT)
    return None


class SnapshotMissing(IntegrityError):  # noqa: N818  (reads as what it is)
    """A snapshot that this machine knows was there and is not any more."""


def missing_error(snapshot: str, seen: Seen, store: str) -> BackupdError:
    """What is said of one."""
    return SnapshotMissing(
        f"{store}: snapshot {snapshot[:8]} of {seen.time:%Y-%m-%d %H:%M} UTC was there and is gone",
        hint="`backupd verify --repair` brings it back from another store, and so does the next backup;"
        f" {_ACCEPT_HINT.format(snapshot[:8])}",
    )
