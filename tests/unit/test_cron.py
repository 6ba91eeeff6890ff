"""When schedules fire, against what crontab(5) says; changes of the clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from apscheduler.triggers.cron import CronTrigger
from hypothesis import given
from hypothesis import strategies as st

from backupd.settings.cron import parse_schedule

UTC_ZONE = ZoneInfo("UTC")
MADRID = ZoneInfo("Europe/Madrid")


def firing(text: str, begin: str, count: int, zone: ZoneInfo = UTC_ZONE) -> list[str]:
    """Local times from `begin` on, with their offset where the zone is not UTC."""
    cron, found = parse_schedule(text), []
    moment = datetime.fromisoformat(begin).replace(tzinfo=zone) - timedelta(seconds=1)
    for _ in range(count):
        moment = cron.after(moment, zone)
        found.append(moment.astimezone(zone).strftime("%a %d %b %H:%M" + ("%z" if zone is not UTC_ZONE else "")))
    return found


@pytest.mark.parametrize(
    ("text", "begin", "expected"),
    [
        # 1 November 2026 is a Sunday.
        ("0 2 * * 0", "2026-11-01", ["Sun 01 Nov 02:00", "Sun 08 Nov 02:00"]),
        ("0 2 * * 7", "2026-11-01", ["Sun 01 Nov 02:00", "Sun 08 Nov 02:00"]),
        ("0 2 * * sun", "2026-11-01", ["Sun 01 Nov 02:00", "Sun 08 Nov 02:00"]),
        ("0 2 * * 1", "2026-11-01", ["Mon 02 Nov 02:00", "Mon 09 Nov 02:00"]),
        ("0 2 * * 1-5", "2026-11-05", ["Thu 05 Nov 02:00", "Fri 06 Nov 02:00", "Mon 09 Nov 02:00"]),
        ("0 2 * * mon-fri", "2026-11-06", ["Fri 06 Nov 02:00", "Mon 09 Nov 02:00"]),
        ("0 2 * * fri-sun", "2026-11-05", ["Fri 06 Nov 02:00", "Sat 07 Nov 02:00", "Sun 08 Nov 02:00"]),
        ("0 2 * * 6-7", "2026-11-01", ["Sun 01 Nov 02:00", "Sat 07 Nov 02:00", "Sun 08 Nov 02:00"]),
        (
            "0 2 * * 0-6/3",
            "2026-11-01",
            ["Sun 01 Nov 02:00", "Wed 04 Nov 02:00", "Sat 07 Nov 02:00", "Sun 08 Nov 02:00"],
        ),
        ("0 2 * * sat,2", "2026-11-01", ["Tue 03 Nov 02:00", "Sat 07 Nov 02:00"]),
        # Both days are given: either will do.
        ("0 2 13 * fri", "2026-11-01", ["Fri 06 Nov 02:00", "Fri 13 Nov 02:00", "Fri 20 Nov 02:00"]),
        ("0 2 1,15 * 3", "2026-11-10", ["Wed 11 Nov 02:00", "Sun 15 Nov 02:00", "Wed 18 Nov 02:00"]),
        # One begins with a star: both must fit.
        ("0 2 */2 * fri", "2026-11-01", ["Fri 13 Nov 02:00", "Fri 27 Nov 02:00"]),
        ("0 2 1-7 * */7", "2026-11-02", ["Sun 06 Dec 02:00", "Sun 03 Jan 02:00"]),
        (
            "*/20 6-7 * * *",
            "2026-11-01",
            ["Sun 01 Nov 06:00", "Sun 01 Nov 06:20", "Sun 01 Nov 06:40", "Sun 01 Nov 07:00"],
        ),
        ("5,35 0-23/12 * * *", "2026-11-01", ["Sun 01 Nov 00:05", "Sun 01 Nov 00:35", "Sun 01 Nov 12:05"]),
        ("0 0 31 * *", "2026-11-01", ["Thu 31 Dec 00:00", "Sun 31 Jan 00:00", "Wed 31 Mar 00:00"]),
        ("0 0 29 2 *", "2026-11-01", ["Tue 29 Feb 00:00", "Sun 29 Feb 00:00"]),
        (
            "0 0 1 jan-mar *",
            "2026-11-01",
            ["Fri 01 Jan 00:00", "Mon 01 Feb 00:00", "Mon 01 Mar 00:00", "Sat 01 Jan 00:00"],
        ),
        ("@hourly", "2026-11-01T10:30", ["Sun 01 Nov 11:00", "Sun 01 Nov 12:00"]),
        ("@daily", "2026-11-01T00:01", ["Mon 02 Nov 00:00"]),
        ("@weekly", "2026-11-02", ["Sun 08 Nov 00:00"]),
        ("@monthly", "2026-11-02", ["Tue 01 Dec 00:00"]),
        ("@yearly", "2026-11-02", ["Fri 01 Jan 00:00"]),
    ],
)
def test_as_crontab_says(text: str, begin: str, expected: list[str]) -> None:
    assert firing(text, begin, len(expected)) == expected


@pytest.mark.parametrize(
    ("text", "begin", "expected"),
    [
        # 29 March 2026, 02:00 CET: clocks go to 03:00.
        ("30 2 * * *", "2026-03-28T12:00", ["Sun 29 Mar 03:30+0200", "Mon 30 Mar 02:30+0200"]),
        ("0 2 * * *", "2026-03-28T12:00", ["Sun 29 Mar 03:00+0200", "Mon 30 Mar 02:00+0200"]),
        ("0 2,3 * * *", "2026-03-28T12:00", ["Sun 29 Mar 03:00+0200", "Mon 30 Mar 02:00+0200"]),
        ("0 * * * *", "2026-03-29T00:30", ["Sun 29 Mar 01:00+0100", "Sun 29 Mar 03:00+0200", "Sun 29 Mar 04:00+0200"]),
        # 25 October 2026, 03:00 CEST: clocks go to 02:00.
        ("30 2 * * *", "2026-10-24T12:00", ["Sun 25 Oct 02:30+0200", "Mon 26 Oct 02:30+0100"]),
        ("0 3 * * *", "2026-10-24T12:00", ["Sun 25 Oct 03:00+0100", "Mon 26 Oct 03:00+0100"]),
        ("0 * * * *", "2026-10-25T01:30", ["Sun 25 Oct 02:00+0200", "Sun 25 Oct 02:00+0100", "Sun 25 Oct 03:00+0100"]),
        (
            "*/30 * * * *",
            "2026-10-25T02:10",
            ["Sun 25 Oct 02:30+0200", "Sun 25 Oct 02:00+0100", "Sun 25 Oct 02:30+0100"],
        ),
    ],
)
def test_when_clocks_change(text: str, begin: str, expected: list[str]) -> None:
    assert firing(text, begin, len(expected), MADRID) == expected


@pytest.mark.parametrize("zone", ["Europe/Madrid", "America/Sao_Paulo", "Australia/Lord_Howe", "Pacific/Apia", "UTC"])
@pytest.mark.parametrize("time", ["0 0", "0 2", "30 2", "15 1", "59 23"])
def test_a_nightly_run_comes_once_a_day(zone: str, time: str) -> None:
    cron, place = parse_schedule(f"{time} * * *"), ZoneInfo(zone)
    moment = begin = datetime(2011, 6, 1, 12, tzinfo=UTC)  # Samoa had no 30 December 2011
    fired = []
    while moment < begin + timedelta(days=400):
        moment = cron.after(moment, place)
        fired.append(moment)
    gaps = {later - earlier for earlier, later in pairwise(fired)}
    assert min(gaps) >= timedelta(hours=22)
    assert max(gaps) <= timedelta(hours=26)


@given(
    minute=st.sampled_from(["*", "*/7", "5", "0-30/10", "1,31"]),
    hour=st.sampled_from(["*", "*/5", "3", "8-18", "0,12"]),
    day=st.sampled_from(["*", "*/10", "1,15"]),
    month=st.sampled_from(["*", "1-6", "2,12"]),
    weekday=st.sampled_from([("*", "*"), ("0", "6"), ("7", "6"), ("1-5", "0-4"), ("sun", "sun"), ("*/2", "6,1,3,5")]),
    begin=st.datetimes(datetime(2024, 1, 1), datetime(2028, 1, 1)),
)
def test_as_apscheduler_where_they_agree(
    minute: str, hour: str, day: str, month: str, weekday: tuple[str, str], begin: datetime
) -> None:
    """In UTC, with its numbers of weekdays, unless both days are given, of which it wants both."""
    if not (day.startswith("*") or weekday[0].startswith("*")):
        day = "*"
    start = begin.replace(tzinfo=UTC)
    trigger = CronTrigger(minute=minute, hour=hour, day=day, month=month, day_of_week=weekday[1], timezone=UTC_ZONE)
    expected = trigger.get_next_fire_time(None, start + timedelta(microseconds=1))
    cron = parse_schedule(f"{minute} {hour} {day} {month} {weekday[0]}")
    assert cron.after(start, UTC_ZONE) == expected


@given(
    text=st.sampled_from(["*/15 * * * *", "30 2 * * *", "0 0 13 * fri", "0 3 1 * *", "0 * * * *", "10 2,3 * * 0"]),
    zone=st.sampled_from([MADRID, UTC_ZONE, ZoneInfo("America/New_York")]),
    moment=st.datetimes(datetime(2024, 1, 1), datetime(2028, 1, 1)),
)
def test_before_is_the_other_way_round(text: str, zone: ZoneInfo, moment: datetime) -> None:
    cron, now = parse_schedule(text), moment.replace(tzinfo=UTC)
    last = cron.before(now, zone)
    assert last <= now
    assert cron.after(last, zone) > now
    assert cron.after(last - timedelta(seconds=1), zone) == last
