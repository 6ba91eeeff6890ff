"""Ed25519 (RFC 8032), from the `cryptography` library. Keys and signatures are hex, as in documents and settings.

What is signed begins with a context, so that a signature under a manifest can never be one under anything else.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import Self

CONTEXT = b"backupd manifest, signature version 1\n"
RECORD_CONTEXT = b"backupd record, signature version 1\n"

_PREFIX = "ed25519:"
_KEY = re.compile(r"[0-9a-f]{64}")


def canonical_signer(text: str) -> str:
    """A signer's public key as documents have it: 64 hex digits, the `ed25519:` before it left out. Else ValueError."""
    key = text.strip().lower().removeprefix(_PREFIX)
    if not _KEY.fullmatch(key):
        raise ValueError("expected a signer's public key: ed25519: and 64 hex digits, as `backupd trust` prints it")
    return key


class SigningKey:
    """A secret key: 32 bytes, kept as they are."""

    def __init__(self, seed: bytes) -> None:
        if len(seed) != 32:
            raise ValueError("an Ed25519 key has 32 bytes")
        self.seed = seed

    @classmethod
    def generate(cls) -> Self:
        """A new one, from the operating system's randomness."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415  (17 ms)

        return cls(Ed25519PrivateKey.generate().private_bytes_raw())

    @cached_property
    def public(self) -> str:
        """The public key, in hex."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415

        return Ed25519PrivateKey.from_private_bytes(self.seed).public_key().public_bytes_raw().hex()

    def sign(self, message: bytes, context: bytes = CONTEXT) -> str:
        """The signature under the context and the message, in hex."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415

        return Ed25519PrivateKey.from_private_bytes(self.seed).sign(context + message).hex()


def signature_holds(signer: str, signature: str, message: bytes, context: bytes = CONTEXT) -> bool:
    """Whether the signature under the message is that signer's; all but the message in hex."""
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415

    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(signer)).verify(bytes.fromhex(signature), context + message)
    except (InvalidSignature, ValueError):
        return False
    return True
