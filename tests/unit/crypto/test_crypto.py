from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyrage
import pytest

from backupd.crypto import (
    Identities,
    PassphraseNeeded,
    Recipients,
    SigningKey,
    canonical_recipient,
    canonical_signer,
    new_identity,
    parse_identities,
    signature_holds,
)
from backupd.errors import IntegrityError, KeyMissing, StoreFull

NOW = datetime(2026, 11, 1, tzinfo=UTC)


def never() -> str:
    raise PassphraseNeeded("nobody was to be asked")


def pair() -> tuple[Identities, str]:
    text, recipient = new_identity(NOW)
    return parse_identities(text.encode(), "id.txt", never), recipient


def ssh_key(directory: Path, kind: str, passphrase: str = "") -> tuple[bytes, str]:
    path = directory / f"{kind}{bool(passphrase)}"
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-f", path, "-C", "me@home"], check=True)
    return path.read_bytes(), path.with_suffix(".pub").read_text()


@pytest.mark.parametrize("kind", ["ed25519", "rsa"])
def test_ssh_keys_read_what_is_encrypted_for_them(kind: str, tmp_path: Path) -> None:
    secret, public = ssh_key(tmp_path, kind)
    canonical = canonical_recipient(public)
    assert canonical == " ".join(public.split()[:2])
    assert "home" not in canonical
    identities = parse_identities(secret, "key", never)
    assert identities.decrypt(Recipients([public]).encrypt(b"secret"), "it") == b"secret"


def test_ssh_keys_with_a_passphrase_are_refused_clearly(tmp_path: Path) -> None:
    secret, _ = ssh_key(tmp_path, "ed25519", "hunter2")
    with pytest.raises(KeyMissing, match="SSH key with a passphrase") as caught:
        parse_identities(secret, "key", never)
    assert "ssh-keygen -p" in (caught.value.hint or "")


def test_any_of_several_recipients_reads() -> None:
    (one, first), (two, second), (other, _) = pair(), pair(), pair()
    sealed = Recipients([first, second, first]).encrypt(memoryview(b"for two"))
    assert one.decrypt(sealed, "it") == two.decrypt(sealed, "it") == b"for two"
    with pytest.raises(KeyMissing, match="encrypted for other keys than those of"):
        other.decrypt(sealed, "it")


def test_damage_is_not_taken_for_a_wrong_key() -> None:
    identities, recipient = pair()
    sealed = Recipients([recipient]).encrypt(b"x" * 1000)
    for damaged in (sealed[:-1], sealed + b"x", sealed[:-5] + bytes([sealed[-5] ^ 1]) + sealed[-4:]):
        with pytest.raises(IntegrityError):
            identities.decrypt(damaged, "it")
    # A chunk's header may be hit where the file key is: of a chunk that is damage, too.
    at = sealed.index(b"\n", 40) + 5
    with pytest.raises(IntegrityError):
        identities.decrypt_frame(sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :])


@pytest.mark.parametrize("protect", [True, False])
def test_identity_files(protect: bool) -> None:
    text, recipient = new_identity(NOW)
    content = text.encode()
    asked: list[int] = []

    def ask() -> str:
        asked.append(1)
        return "correct horse"

    if protect:
        content = pyrage.passphrase.encrypt(content, "correct horse", armored=True)
    identities = parse_identities(content, "id", ask)
    assert len(asked) == protect
    assert identities.decrypt(Recipients([recipient]).encrypt(b"x"), "it") == b"x"
    if protect:
        with pytest.raises(KeyMissing, match="cannot be opened"):
            parse_identities(content, "id", lambda: "wrong")


@pytest.mark.parametrize(("refusals", "opens"), [(3, True), (1000, False)])
def test_a_busy_machine_is_tried_again(monkeypatch: pytest.MonkeyPatch, refusals: int, opens: bool) -> None:
    """The library takes a machine that is busy at the moment for one that is too slow."""
    identity = "AGE-SECRET-KEY-1" + "Q" * 4
    left = [refusals]

    def decrypt(content: bytes, passphrase: str) -> bytes:
        left[0] -= 1
        if left[0] >= 0:
            raise pyrage.DecryptError(
                "Excessive work parameter for passphrase.\nDecryption would take around 32 seconds."
            )
        return identity.encode()

    monkeypatch.setattr(pyrage.passphrase, "decrypt", decrypt)
    said = "line 1: not an identity" if opens else "Excessive work parameter for passphrase. Decryption would"
    with pytest.raises(KeyMissing, match=said):
        parse_identities(b"age-encryption.org/v1\n-> scrypt", "id", lambda: "secret")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "holds no identity"),
        (b"# nothing\n", "holds no identity"),
        (b"hello", "line 1: not an identity"),
        (b"# x\nAGE-SECRET-KEY-1XYZ", "line 2: not an identity"),
        (b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----", "not an SSH key"),
    ],
)
def test_what_is_no_identity_file(content: bytes, said: str) -> None:
    with pytest.raises(KeyMissing, match=said):
        parse_identities(content, "file", never)


@pytest.mark.parametrize(
    "text", ["", "age1", "age1xyz", "ssh-rsa", "ssh-ed25519 AAAA", "ecdsa-sha2-nistp256 AAAA", "me@example.org"]
)
def test_what_is_no_recipient(text: str) -> None:
    with pytest.raises(ValueError, match="public key"):
        canonical_recipient(text)


def test_a_secret_key_is_no_recipient_and_is_not_repeated() -> None:
    secret = new_identity(NOW)[0].splitlines()[-1]
    with pytest.raises(ValueError, match="secret key") as caught:
        canonical_recipient(secret)
    assert secret not in str(caught.value)


@pytest.mark.parametrize("size", [0, 1, 65_536, 1_000_003])
def test_streams(size: int) -> None:
    identities, recipient = pair()
    plain, sealed = os.urandom(size), bytearray()
    with Recipients([recipient]).stream(sealed.extend) as stream:
        for start in range(0, size, 7001):
            stream.append(memoryview(plain)[start : start + 7001])
        stream.close()
    pieces = [bytes(sealed[start : start + 5003]) for start in range(0, len(sealed), 5003)]
    assert b"".join(identities.stream(pieces, "it")) == plain
    assert identities.decrypt(bytes(sealed), "it") == plain


def test_streams_end_with_what_went_wrong() -> None:
    identities, recipient = pair()
    recipients = Recipients([recipient])

    def full(_: object) -> None:
        raise StoreFull("no room")

    with pytest.raises(StoreFull), recipients.stream(full) as stream:  # noqa: PT012
        for _ in range(1000):
            stream.append(bytes(10_000))
        stream.close()
    with pytest.raises(StoreFull), recipients.stream(full) as stream:  # noqa: PT012
        stream.append(b"little")
        stream.close()
    sealed = recipients.encrypt(os.urandom(300_000))
    with pytest.raises(IntegrityError, match="damaged"):
        list(identities.stream([sealed[:-1]], "it"))
    with pytest.raises(KeyMissing):
        list(pair()[0].stream([sealed], "it"))

    def failing() -> Iterator[bytes]:
        yield sealed[:1000]
        raise StoreFull("gone")

    with pytest.raises(StoreFull):
        list(identities.stream(failing(), "it"))


def test_streams_left_early_leave_no_thread() -> None:
    identities, recipient = pair()
    recipients = Recipients([recipient])
    with recipients.stream(bytearray().extend) as stream:
        for _ in range(100):
            stream.append(bytes(10_000))
    sealed = recipients.encrypt(bytes(10_000_000))
    reading = identities.stream([sealed], "it")
    assert next(reading)
    reading.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name in {"encrypt", "decrypt"}]


def test_signatures() -> None:
    # RFC 8032, section 7.1, test 1, for the key.
    seed = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    key = SigningKey(seed)
    assert key.public == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    signature = key.sign(b"manifest")
    assert signature_holds(key.public, signature, b"manifest")
    assert not signature_holds(key.public, signature, b"manifesto")
    assert not signature_holds(SigningKey.generate().public, signature, b"manifest")
    assert not signature_holds(key.public, "00" * 64, b"manifest")
    assert not signature_holds("00", signature, b"manifest")
    assert canonical_signer(f" ED25519:{key.public.upper()}\n".replace("ED25519", "ed25519")) == key.public
    with pytest.raises(ValueError, match="64 hex digits"):
        canonical_signer("ed25519:abc")
