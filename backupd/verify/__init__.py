"""Verify: whether stores still hold what their snapshots say; and repair, from a store that does."""

from backupd.verify.operation import verify
from backupd.verify.recording import Look, keep_findings
from backupd.verify.result import StoreVerified, Verified, VerifyRequest
from backupd.verify.verifier import Finding, Verifier

__all__ = [
    "Finding",
    "Look",
    "StoreVerified",
    "Verified",
    "Verifier",
    "VerifyRequest",
    "keep_findings",
    "verify",
]
