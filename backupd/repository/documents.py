"""How documents are stored: JSON that a person can read, signed, and sealed with a hash of itself (docs/FORMAT.md).

{ …,
 "signer": "<Ed25519 public key>",       only where a signature was asked for
 "signature": "<under all bytes before the comma>",
 "blake3": "<of all bytes before the comma>"
}
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any, NamedTuple, TypeVar

import msgspec
from blake3 import blake3

from backupd.crypto import RECORD_CONTEXT, Identities, Recipients, SigningKey
from backupd.errors import IntegrityError, RepositoryError
from backupd.malformed import MALFORMED
from backupd.repository.checkrecord import CheckRecord
from backupd.repository.drillrecord import DrillRecord
from backupd.repository.manifest import FORMAT, HIDDEN, Encryption, Manifest, RepositoryConfig

_SEAL = re.compile(rb',\n "blake3": "([0-9a-f]{64})"\n\}\n')
_SEAL_SIZE = len(',\n "blake3": ""\n}\n') + 64
_SIGNATURE = re.compile(rb',\n "signer": "([0-9a-f]{64})",\n "signature": "([0-9a-f]{128})"')
_SIGNATURE_SIZE = len(',\n "signer": "",\n "signature": ""') + 64 + 128
_SIGNED_UP_TO = len(',\n "signature": ""') + 128

# What stays legible in the manifest of an encrypted snapshot: what listing, pruning, copying and building upon it take.
# All else is private, fields of later versions too.
_CLEAR = {"format", "id", "time", "finished", "plan", "reason", "part", "archives", "failures", "encryption"}
_CLEAR_ARCHIVE = {
    *("volume", "full", "base", "parent", "started", "finished", "plain_size", "new_size", "stored_size"),
    *("chunks", "members", "warning_count", "index", "files", "needs"),
}
_CLEAR_FAILURE = {"volume", "optional"}
# What handling a tree raises that is not built as a manifest is.
_WRONG_SHAPE = (TypeError, KeyError, AttributeError)


class Signature(NamedTuple):
    """Who signed a document (public key), the signature, both in hex, and what was signed."""

    signer: str
    signature: str
    message: bytes


def encode(
    document: RepositoryConfig | Manifest | DrillRecord | CheckRecord, signer: SigningKey | None = None
) -> bytes:
    """As stored. A manifest with recipients has its private part encrypted for them, whatever it says of a format."""
    tree: dict[str, Any] = msgspec.to_builtins(document)
    tree.pop("signer", None)  # the signature itself says who
    if isinstance(document, Manifest) and document.encryption is not None:
        tree = _with_private_part(tree, document.encryption.recipients)
    body = msgspec.json.format(msgspec.json.encode(tree), indent=1).removesuffix(b"\n}")
    if signer is not None:
        body += b',\n "signer": "%b"' % signer.public.encode()
        signature = signer.sign(body) if isinstance(document, Manifest) else signer.sign(body, RECORD_CONTEXT)
        body += b',\n "signature": "%b"' % signature.encode()
    return _sealed(body)


def seal(document: bytes) -> bytes:
    """A JSON object, sealed; for documents that are decoded elsewhere."""
    return _sealed(msgspec.json.format(document, indent=1).removesuffix(b"\n}"))


def _sealed(body: bytes) -> bytes:
    return b'%b,\n "blake3": "%b"\n}\n' % (body, blake3(body).hexdigest().encode())


def is_whole(data: bytes) -> bool:
    """Whether the seal of a stored document is right."""
    found = _SEAL.fullmatch(data, max(0, len(data) - _SEAL_SIZE))
    return found is not None and blake3(data[: found.start()]).hexdigest().encode() == found[1]


def signature_of(data: bytes) -> Signature | None:
    """The signature that a stored document carries, unchecked. Its seal has been checked."""
    end = len(data) - _SEAL_SIZE
    found = _SIGNATURE.fullmatch(data, max(0, end - _SIGNATURE_SIZE), max(0, end))
    return found and Signature(found[1].decode(), found[2].decode(), data[: end - _SIGNED_UP_TO])


_T = TypeVar("_T", RepositoryConfig, Manifest, DrillRecord, CheckRecord)


class _Versioned(msgspec.Struct):
    format: int


# Made on import, and not at the first use: msgspec prepares a type for decoding when it first meets it, and a process
# whose threads do that at the same time dies of a segmentation fault (msgspec 0.22).
_VERSION = msgspec.json.Decoder(_Versioned)
_DECODERS: dict[type, msgspec.json.Decoder[Any]] = {
    kind: msgspec.json.Decoder(kind) for kind in (RepositoryConfig, Manifest, DrillRecord, CheckRecord)
}
_TREE: msgspec.json.Decoder[Any] = msgspec.json.Decoder()


def decode(data: bytes, kind: type[_T], key: str) -> _T:
    """A stored document; RepositoryError if a later version wrote it, IntegrityError if it is not what it should be.

    Fields that are not known are left alone. The seal is that of every format. Signatures are not checked here, but a
    manifest says whose it carries.
    """
    if not is_whole(data):
        raise IntegrityError(f"{key} is damaged: it is not what was written")
    signed = signature_of(data)
    try:
        version = _VERSION.decode(data).format
        if version > FORMAT:
            raise RepositoryError(
                f"{key} is of format {version}, and this backupd reads format {FORMAT}",
                hint="a newer backupd wrote it: use that version",
            )
        if kind is Manifest and version > 1:
            data = msgspec.json.encode(_with_placeholders(_TREE.decode(data)))
        document: _T = _DECODERS[kind].decode(data)
        if isinstance(document, Manifest):
            return msgspec.structs.replace(document, signer=signed.signer if signed else None)
        return document
    except (*MALFORMED, *_WRONG_SHAPE) as exc:
        raise IntegrityError(f"{key} is damaged: {exc}") from exc


def _with_private_part(tree: dict[str, Any], recipients: list[str]) -> dict[str, Any]:
    """What is to be stored of a manifest; the tree is used up."""
    private = _taken(tree, _CLEAR)
    private["archives"] = [_taken(archive, _CLEAR_ARCHIVE) for archive in tree["archives"]]
    private["failures"] = [_taken(failure, _CLEAR_FAILURE) for failure in tree["failures"]]
    sealed = Recipients(recipients).encrypt(msgspec.json.encode(private))
    tree["format"] = 2
    tree["encryption"] = {"recipients": recipients, "private": base64.b64encode(sealed).decode()}
    return tree


def _taken(tree: dict[str, Any], stays: set[str]) -> dict[str, Any]:
    """Takes out of a tree what may not stay in it."""
    return {name: tree.pop(name) for name in list(tree) if name not in stays}


def _without(tree: dict[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in tree.items() if name not in names}


def _with_placeholders(tree: dict[str, Any]) -> dict[str, Any]:
    """A stored manifest with something in every place that its private part fills."""
    if tree.get("encryption") is None:
        return tree
    tree = {"host": HIDDEN, "program": HIDDEN, **tree}
    for archive in tree["archives"]:
        source = {"name": archive["volume"], "kind": "volume", "source": HIDDEN}
        archive.update({"source": source, "tool": None, "consistency": HIDDEN, "features": []} | archive)
    for failure in tree["failures"]:
        failure.setdefault("error", HIDDEN)
    return tree


def opened(manifest: Manifest, identities: Identities) -> Manifest:
    """The manifest with its private part; KeyMissing if the identities don't open it, IntegrityError if it is odd."""
    if manifest.encryption is None or manifest.encryption.private is None:
        return manifest
    what = f"snapshot {manifest.short_id}"
    try:
        plain = identities.decrypt(base64.b64decode(manifest.encryption.private, validate=True), what)
        private = _TREE.decode(plain)
        clear = msgspec.to_builtins(manifest)
        tree = clear | _without(private, {*_CLEAR, "signer"})
        for name, stays in (("archives", _CLEAR_ARCHIVE), ("failures", _CLEAR_FAILURE)):
            pairs = zip(clear[name], private[name], strict=True)
            tree[name] = [legible | _without(hidden, stays) for legible, hidden in pairs]
        tree["encryption"] = Encryption(recipients=manifest.encryption.recipients)
        document: Manifest = _DECODERS[Manifest].decode(msgspec.json.encode(tree))
        return document
    except (*MALFORMED, binascii.Error, ValueError, *_WRONG_SHAPE) as exc:
        raise IntegrityError(f"the private part of {what} is damaged: {exc}") from exc
