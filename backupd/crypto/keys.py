"""New keys."""

from __future__ import annotations

from datetime import datetime


def new_identity(now: datetime) -> tuple[str, str]:
    """An identity file for a new X25519 key, as `age-keygen` writes it, and the recipient that belongs to it."""
    import pyrage  # noqa: PLC0415  (only where a key is made)

    identity = pyrage.x25519.Identity.generate()
    recipient = str(identity.to_public())
    return f"# created: {now.isoformat(timespec='seconds')}\n# public key: {recipient}\n{identity}\n", recipient
