"""Settings as a plain tree for people and programs, without secrets, and where each of its values comes from."""

from __future__ import annotations

from typing import Any

from backupd.settings.layers import Origins, walk
from backupd.settings.model import Settings

DEFAULT = "default"


def show(settings: Settings) -> dict[str, Any]:
    """What `config show` prints: every key, defaults included, secrets as `********`. Loads again but for those."""
    return settings.model_dump(mode="json")


def origins(settings: Settings, found: Origins) -> dict[str, str]:
    """Dotted key to source, for every value that `show` shows."""
    return {
        ".".join(key): found.of(key) or DEFAULT for key, value in walk(show(settings)) if not isinstance(value, dict)
    }
