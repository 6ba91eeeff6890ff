"""The one shape of a check, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Literal

from msgspec import Struct

from backupd.errors import BackupdError

Level = Literal["ok", "note", "warning", "error"]


class Result(Struct, frozen=True):
    """What was found of a subject, and what to do about it.

    `error`: backups or restores fail, or something that was configured does not hold. `warning`: they work, and will
    not for ever, or not against what they should survive. `note`: worth knowing.
    """

    level: Level
    subject: str
    text: str
    advice: str | None = None


class Check(Struct, frozen=True):
    """Something to look at. `run` yields results as it finds them, and raises what keeps it from looking on."""

    area: str
    subject: str
    run: Callable[[], Iterable[Result]]


class Finding(Struct, frozen=True):
    """A result and the area that it belongs to."""

    area: str
    result: Result


def examine(checks: Iterable[Check]) -> Iterator[Finding]:
    """Make every check. One that fails, or that has a mistake in it, is an error of its subject and ends no other."""
    for check in checks:
        try:
            for result in check.run():
                yield Finding(check.area, result)
        except BackupdError as exc:
            yield Finding(
                check.area, Result("error", check.subject, str(exc).removeprefix(f"{check.subject}: "), exc.hint)
            )
        except OSError as exc:
            where = f": {exc.filename}" if exc.filename else ""
            yield Finding(check.area, Result("error", check.subject, f"{exc.strerror or exc}{where}"))
        except Exception as exc:  # a mistake of a check must not hide what the others find
            text = f"could not be looked at: {type(exc).__name__}: {' '.join(str(exc).split())[:200]}"
            yield Finding(check.area, Result("error", check.subject, text, "this is a mistake of backupd's: report it"))
