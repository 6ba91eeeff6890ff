"""What is wrong with a configuration, as a list that can be printed."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from backupd.errors import ConfigError

Key = tuple[str, ...]


class Problem(Struct, frozen=True):
    """One thing that is wrong: the key it is about and, once known, the file or variable that it comes from."""

    key: Key
    message: str
    source: str | None = None

    def __str__(self) -> str:
        return ": ".join(part for part in (self.source, ".".join(self.key), self.message) if part)


class SettingsError(ConfigError):
    """The configuration cannot be used; the message has one line a problem."""

    hint = "docs/CONFIGURATION.md describes every key"

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(dict.fromkeys(problems))
        super().__init__("\n".join(map(str, self.problems)))
