"""When a schedule fires: crontab(5)'s rules, in a time zone, with its changes of the clock. Pure.

- A day has to fit both the day of the month and the day of the week, but if neither field begins with `*`, either.
- A time of day that is skipped when clocks go forward fires as many minutes after the gap as it lies within it.
- A time of day that comes twice when clocks go back fires at the first; every hour and every minute (`*` for the hour)
  go on through both.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta, tzinfo

from msgspec import Struct

_HOURS = 24
_DAY = timedelta(days=1)
_FARTHEST_DAYS = 366 * 41  # 29 February on one day of the week comes at most 40 years later: across 2100


class Cron(Struct, frozen=True):
    """The values of the five fields; Sunday is 0. `either`: one of both days is enough."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either: bool = False

    def after(self, moment: datetime, zone: tzinfo) -> datetime:
        """The first time after that moment, in UTC."""
        day = moment.astimezone(zone).date()
        for number in range(-1, _FARTHEST_DAYS):
            for fires in self._fires_on(day + number * _DAY, zone):
                if fires > moment:
                    return fires
        raise AssertionError("the settings accept no schedule that never fires")

    def before(self, moment: datetime, zone: tzinfo) -> datetime:
        """The last time at or before that moment, in UTC."""
        day = moment.astimezone(zone).date()
        for number in range(-1, _FARTHEST_DAYS):
            for fires in reversed(self._fires_on(day - number * _DAY, zone)):
                if fires <= moment:
                    return fires
        raise AssertionError("the settings accept no schedule that never fires")

    def fits(self, day: date) -> bool:
        """Whether it fires on that day."""
        if day.month not in self.months:
            return False
        of_month, of_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return of_month or of_week if self.either else of_month and of_week

    def _fires_on(self, day: date, zone: tzinfo) -> list[datetime]:
        return sorted(set(self._moments(day, zone))) if self.fits(day) else []

    def _moments(self, day: date, zone: tzinfo) -> Iterator[datetime]:
        for hour in self.hours:
            for minute in self.minutes:
                local = datetime.combine(day, time(hour, minute), zone)
                first = local.astimezone(UTC)  # of a time that is skipped, with the offset of before
                yield first
                if len(self.hours) == _HOURS and (second := local.replace(fold=1).astimezone(UTC)) > first:
                    yield second
