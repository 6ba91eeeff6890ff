"""When a schedule fired last."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from apscheduler.triggers.cron import CronTrigger
from hypothesis import given
from hypothesis import strategies as st

from backupd.settings.cron import last_fire

NOON = datetime(2026, 11, 24, 12, 0, 30, tzinfo=UTC)  # a Tuesday


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("0 2 * * *", datetime(2026, 11, 24, 2, 0, tzinfo=UTC)),
        ("0 13 * * *", datetime(2026, 11, 23, 13, 0, tzinfo=UTC)),
        ("*/15 * * * *", datetime(2026, 11, 24, 12, 0, tzinfo=UTC)),
        ("@hourly", datetime(2026, 11, 24, 12, 0, tzinfo=UTC)),
        ("@daily", datetime(2026, 11, 24, 0, 0, tzinfo=UTC)),
        ("@weekly", datetime(2026, 11, 22, 0, 0, tzinfo=UTC)),
        ("@monthly", datetime(2026, 11, 1, 0, 0, tzinfo=UTC)),
        ("@yearly", datetime(2026, 1, 1, 0, 0, tzinfo=UTC)),
        ("30 3 * * mon-fri", datetime(2026, 11, 24, 3, 30, tzinfo=UTC)),
        ("30 3 * * 7", datetime(2026, 11, 22, 3, 30, tzinfo=UTC)),
        ("0 0 29 2 *", datetime(2024, 2, 29, 0, 0, tzinfo=UTC)),
        ("0 0 13 * fri", datetime(2026, 11, 20, 0, 0, tzinfo=UTC)),
    ],
)
def test_last_fire(schedule: str, expected: datetime) -> None:
    assert last_fire(schedule, NOON, UTC) == expected


def test_the_wall_clock_of_the_zone_counts() -> None:
    assert last_fire("0 2 * * *", NOON, ZoneInfo("Europe/Madrid")) == datetime(2026, 11, 24, 1, 0, tzinfo=UTC)


@given(st.integers(0, 59), st.integers(0, 23), st.integers(0, 400), st.sampled_from(["*", "1-5", "sat", "1,15"]))
def test_it_agrees_with_the_scheduler(minute: int, hour: int, days: int, weekday: str) -> None:
    """The next fire after the last one is not before the moment."""
    text = f"{minute} {hour} {weekday if weekday == '1,15' else '*'} * {'*' if weekday == '1,15' else weekday}"
    moment = NOON + timedelta(days=days)
    found = last_fire(text, moment, UTC)
    trigger = CronTrigger.from_crontab(text.replace("1-5", "mon-fri"), timezone="UTC")
    assert trigger.get_next_fire_time(None, found) == found
    following = trigger.get_next_fire_time(None, found + timedelta(seconds=1))
    assert following is not None
    assert following > moment
