"""The small values of the configuration: durations, sizes, names, paths, secrets. Each parser says what it expects.

A parser raises ValueError with the whole message. `format_*` is the inverse: what it gives, the parser reads back.
"""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from msgspec import Struct
from pydantic import AfterValidator, BeforeValidator, PlainSerializer, PlainValidator, SecretStr

from backupd.model import FullEvery
from backupd.settings.words import did_you_mean, spell

MASK = "********"

_SECONDS = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}
_BYTES = {
    "TiB": 1024**4, "TB": 1000**4, "GiB": 1024**3, "GB": 1000**3,
    "MiB": 1024**2, "MB": 1000**2, "KiB": 1024, "KB": 1000, "B": 1,
}  # fmt: skip
_UNITS = {unit.lower(): factor for unit, factor in _BYTES.items()}
_LONGEST = timedelta(days=36_525)
_LARGEST = 1024**6
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
_DURATION = "a duration such as 90s, 15m, 12h, 7d or 2w"
_SIZE = "a size such as 64MiB, 1GiB or 500MB"

RESERVED_PLANS = frozenset({"safety", "import", "latest", "all"})
"""Names that mean something else where a plan's name may stand."""


class PathMark(Struct, frozen=True):
    """Marks a path that is relative to the configuration's directory. `only_engine`: with that engine only."""

    only_engine: str | None = None


def parse_duration(value: object) -> timedelta:
    """`90s`, `15m`, `12h`, `7d`, `2w`: more than nothing and at most a hundred years."""
    if isinstance(value, timedelta):
        return value
    match = re.fullmatch(r"([0-9]{1,12})\s*([smhdw])", value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"expected {_DURATION}, not {spell(value)}{_unit_hint(value)}")
    seconds = int(match[1]) * _SECONDS[match[2]]
    if not 0 < seconds <= _LONGEST.total_seconds():
        raise ValueError(f"expected {_DURATION}, above zero and at most 100 years, not {spell(value)}")
    return timedelta(seconds=seconds)


def format_duration(duration: timedelta) -> str:
    """A duration of whole seconds in the largest unit that divides it, days at most: `7d` says more than `1w`."""
    seconds = int(duration.total_seconds())
    unit = next(unit for unit in "dhms" if seconds % _SECONDS[unit] == 0)
    return f"{seconds // _SECONDS[unit]}{unit}"


def parse_size(value: object) -> int:
    """`64MiB`, `1GiB`, `500MB`, or a plain number of bytes."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = f"{value}B"
    elif isinstance(value, str) and re.fullmatch(r"\s*[0-9]+\s*", value):
        value = f"{value.strip()}B"
    match = re.fullmatch(r"([0-9]{1,19})\s*([A-Za-z]+)", value.strip()) if isinstance(value, str) else None
    if match is None or match[2].lower() not in _UNITS:
        raise ValueError(f"expected {_SIZE}, not {spell(value)}")
    size = int(match[1]) * _UNITS[match[2].lower()]
    if size > _LARGEST:
        raise ValueError(f"expected {_SIZE}, at most 1048576TiB, not {spell(value)}")
    return size


def format_size(size: int) -> str:
    """A number of bytes in the largest unit that divides it."""
    unit = next(unit for unit, factor in _BYTES.items() if size % factor == 0 and (size or unit == "B"))
    return f"{size // _BYTES[unit]}{unit}"


def parse_full_every(value: object) -> FullEvery:
    """`always`, `never` or a duration."""
    if isinstance(value, FullEvery):
        return value
    if value in ("always", "never"):
        return FullEvery(timedelta(0) if value == "always" else None)
    try:
        return FullEvery(parse_duration(value))
    except ValueError as exc:
        raise ValueError(str(exc).replace(_DURATION, f"always, never or {_DURATION}", 1)) from None


def format_full_every(full_every: FullEvery) -> str:
    """The inverse of `parse_full_every`."""
    if full_every.age is None:
        return "never"
    return format_duration(full_every.age) if full_every.age else "always"


def check_name(name: str) -> str:
    """`name`, if a volume, store or plan may be called so."""
    if not _NAME.fullmatch(name):
        raise ValueError(
            "not a name: expected lower-case letters, digits, `_`, `.` and `-`, "
            "a letter or digit first, at most 63 characters"
        )
    return name


def check_plan_name(name: str) -> str:
    """`name`, if a plan may be called so."""
    if name in RESERVED_PLANS:
        raise ValueError(f"a plan cannot be called {name!r}: the word is reserved")
    return check_name(name)


def check_timezone(name: str) -> str:
    """`name`, if it is in the time zone database. UTC always is."""
    if name == "UTC":
        return name
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        known = available_timezones()
        if not known:
            raise ValueError("this machine has no time zone database (tzdata): only UTC is known") from None
        guess = did_you_mean(name, known)
        raise ValueError(f"expected a time zone such as Europe/Madrid, not {spell(name)}{guess}") from None
    return name


def _unit_hint(value: object) -> str:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return ": the unit is missing" if is_number or (isinstance(value, str) and value.strip().isdigit()) else ""


def _parse_path(value: object) -> Path:
    text = str(value) if isinstance(value, Path) else value
    if not isinstance(text, str) or not text or "\0" in text:
        raise ValueError(f"expected a path, not {spell(value)}")
    if text.startswith("~"):
        raise ValueError(f"expected a path, not {spell(value)}: `~` is not expanded, write the directory out")
    if not text.startswith("/"):
        raise ValueError(f"expected an absolute path, not {spell(value)}")
    return Path(text)


def _no_boolean(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError(f"expected a whole number, not {spell(value)}")
    return value


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _no_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("expected text, not an empty one")
    if value != value.strip() or any(ord(char) < 0x20 or ord(char) == 0x7F for char in value):
        raise ValueError("expected text without control characters, and without blanks at its ends")
    return value


Duration = Annotated[timedelta, PlainValidator(parse_duration), PlainSerializer(format_duration, return_type=str)]
Size = Annotated[int, BeforeValidator(parse_size), PlainSerializer(format_size, return_type=str)]
FullEveryValue = Annotated[
    FullEvery, PlainValidator(parse_full_every), PlainSerializer(format_full_every, return_type=str)
]
WholeNumber = Annotated[int, BeforeValidator(_no_boolean)]
Text = Annotated[str, AfterValidator(_no_blank)]
Name = Annotated[str, AfterValidator(check_name)]
PlanName = Annotated[str, AfterValidator(check_plan_name)]
Timezone = Annotated[str, AfterValidator(check_timezone)]
AnyPath = Annotated[Path, PlainValidator(_parse_path), PlainSerializer(str, return_type=str), PathMark()]
Secret = Annotated[SecretStr, PlainSerializer(lambda _: MASK, return_type=str)]
LogLevel = Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)]
LogFormat = Literal["auto", "text", "json"]
