"""The syntax of schedules: five fields as in crontab(5), or one of five words. What they mean is in `backupd.cron`."""

from __future__ import annotations

import re
from datetime import datetime, tzinfo
from typing import Annotated

from msgspec import Struct
from pydantic import AfterValidator

from backupd.cron import Cron
from backupd.settings.words import did_you_mean, one_of, spell

_MEANING = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
}
WORDS = tuple(_MEANING)
_DAYS_IN_MONTH = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_ITEM = re.compile(r"(?P<star>\*)(?:/(?P<every>\d+))?|(?P<first>\w+)(?:-(?P<last>\w+)(?:/(?P<step>\d+))?)?")


class _Field(Struct, frozen=True):
    name: str
    low: int
    high: int
    words: tuple[str, ...] = ()


_FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of the month", 1, 31),
    _Field("month", 1, 12, ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")),
    _Field("day of the week", 0, 7, ("sun", "mon", "tue", "wed", "thu", "fri", "sat")),
)


def check_schedule(text: str) -> str:
    """`text`, if it is a schedule that will ever fire; ValueError says which field is wrong."""
    parse_schedule(text)
    return text


def parse_schedule(text: str) -> Cron:
    """What the schedule says; ValueError as from `check_schedule`."""
    if text.startswith("@") and text not in _MEANING:
        raise ValueError(f"expected five fields or {one_of(WORDS)}, not {spell(text)}{did_you_mean(text, WORDS)}")
    parts = _MEANING.get(text, text).split()
    if len(parts) != len(_FIELDS):
        raise ValueError(
            f"expected five fields (minute, hour, day of the month, month, day of the week) or {one_of(WORDS)}, "
            f"not {spell(text)}"
        )
    minutes, hours, days, months, weekdays = (
        frozenset(_values(part, field)) for part, field in zip(parts, _FIELDS, strict=True)
    )
    either = not (parts[2].startswith("*") or parts[4].startswith("*"))
    if not either and all(min(days) > _DAYS_IN_MONTH[month - 1] for month in months):
        raise ValueError(f"{spell(text)} never fires: its months have no such day")
    return Cron(minutes, hours, days, months, frozenset(day % 7 for day in weekdays), either)


def _values(part: str, field: _Field) -> set[int]:
    values: set[int] = set()
    for item in part.lower().split(","):
        match = _ITEM.fullmatch(item)
        if match is None:
            raise ValueError(f"the {field.name} field of the schedule cannot be {spell(part)}")
        low, high = field.low, field.high
        if match["first"]:
            low = _number(match["first"], field)
            high = _number(match["last"], field) if match["last"] else low
            if match["last"] == "sun":
                high = field.high  # Sunday is 0 and 7; at the end of a range it is 7
        step = int(match["every"] or match["step"] or 1)
        if low > high or step == 0:
            raise ValueError(f"the {field.name} field of the schedule cannot be {spell(part)}")
        values.update(range(low, high + 1, step))
    return values


def _number(text: str, field: _Field) -> int:
    if text in field.words:
        return field.words.index(text) + (field.low if field.name == "month" else 0)
    if not (text.isascii() and text.isdigit()) or not field.low <= int(text) <= field.high:
        raise ValueError(f"the {field.name} field of the schedule takes {field.low} to {field.high}, not {spell(text)}")
    return int(text)


def last_fire(schedule: str, moment: datetime, zone: tzinfo) -> datetime:
    """The last time at or before `moment` at which a schedule fires, in that zone."""
    return parse_schedule(schedule).before(moment, zone).astimezone(zone)


Schedule = Annotated[str, AfterValidator(check_schedule)]
