"""age files and Ed25519 signatures, through kept libraries. Pure: bytes in, bytes out, no cryptography of our own.

The libraries are imported when they are first needed: most runs of the program need neither.
"""

from backupd.crypto.identities import Identities, PassphraseNeeded, parse_identities
from backupd.crypto.keys import new_identity
from backupd.crypto.recipients import Recipients, canonical_recipient
from backupd.crypto.signing import RECORD_CONTEXT, SigningKey, canonical_signer, signature_holds

__all__ = [
    "RECORD_CONTEXT",
    "Identities",
    "PassphraseNeeded",
    "Recipients",
    "SigningKey",
    "canonical_recipient",
    "canonical_signer",
    "new_identity",
    "parse_identities",
    "signature_holds",
]
