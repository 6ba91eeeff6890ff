# ruff: noqa: E501  (tables)
"""Durations, sizes, names and schedules."""

from __future__ import annotations

import contextlib
import re
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backupd.model import FullEvery
from backupd.settings.cron import WORDS, check_schedule
from backupd.settings.types import (
    check_name,
    check_plan_name,
    check_timezone,
    format_duration,
    format_full_every,
    format_size,
    parse_duration,
    parse_full_every,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("15m", 900), ("12h", 43_200), ("7d", 604_800), ("2w", 1_209_600), (" 1 h ", 3_600)],
)
def test_durations(text: str, seconds: int) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "value", ["", "h", "1", "1.5h", "-1h", "1H30m", "0s", "1y", "9999999999w", "٣h", 5, 1.5, None, [], True]
)
def test_not_durations(value: object) -> None:
    with pytest.raises(ValueError, match="expected a duration such as 90s, 15m, 12h, 7d or 2w"):
        parse_duration(value)


@pytest.mark.parametrize("value", [10, "10", 1.5])
def test_a_missing_unit_is_named(value: object) -> None:
    with pytest.raises(ValueError, match="the unit is missing"):
        parse_duration(value)


@given(st.integers(1, 36_525 * 86_400))
def test_a_duration_survives_formatting(seconds: int) -> None:
    duration = timedelta(seconds=seconds)
    assert parse_duration(format_duration(duration)) == duration


@pytest.mark.parametrize(
    ("value", "size"),
    [("64MiB", 64 << 20), ("1GiB", 1 << 30), ("500MB", 500_000_000), ("1 KiB", 1024), ("1kib", 1024), ("2TB", 2 * 10**12),
     ("7B", 7), ("1024", 1024), (1024, 1024), (0, 0)],
)  # fmt: skip
def test_sizes(value: object, size: int) -> None:
    assert parse_size(value) == size


@pytest.mark.parametrize(
    "value", ["", "MiB", "1.5GiB", "-1MiB", -1, "512m", "1G", "1XiB", "9" * 20 + "B", "999999999TiB", None, True, []]
)
def test_not_sizes(value: object) -> None:
    with pytest.raises(ValueError, match="expected a size such as 64MiB, 1GiB or 500MB"):
        parse_size(value)


@given(st.integers(0, 1024**6))
def test_a_size_survives_formatting(size: int) -> None:
    assert parse_size(format_size(size)) == size


@given(st.text(max_size=12))
def test_any_text_is_a_value_or_a_value_error(text: str) -> None:
    for parse in (parse_duration, parse_size, parse_full_every, check_schedule, check_name):
        with contextlib.suppress(ValueError):
            parse(text)


@pytest.mark.parametrize(
    ("text", "age"),
    [("always", timedelta(0)), ("never", None), ("7d", timedelta(days=7)), ("36h", timedelta(hours=36))],
)
def test_full_every(text: str, age: timedelta | None) -> None:
    assert parse_full_every(text) == FullEvery(age)
    assert format_full_every(parse_full_every(text)) == text
    assert parse_full_every(FullEvery(age)) == FullEvery(age)


def test_full_every_says_all_that_it_takes() -> None:
    with pytest.raises(ValueError, match=r"expected always, never or a duration such as .*, not 'weekly'"):
        parse_full_every("weekly")


@pytest.mark.parametrize("name", ["a", "0", "postgres_data", "a.b-c_d", "a" * 63])
def test_names(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", "A", "-a", ".a", "_a", "a/b", "a b", "a" * 64, "é", "a\n"])
def test_not_names(name: str) -> None:
    with pytest.raises(ValueError, match="not a name"):
        check_name(name)


@pytest.mark.parametrize("name", ["safety", "import", "latest", "all"])
def test_reserved_plans(name: str) -> None:
    with pytest.raises(ValueError, match="reserved"):
        check_plan_name(name)


@pytest.mark.parametrize(
    "text",
    [*WORDS, "* * * * *", "0 2 * * *", "*/15 0-6 1,15 * mon-fri", "0 0 29 2 *", "5 4 * JAN SUN", "0 0 * * 7", "0 0 * * fri-sun",
     "0-30/10 8-20/4 * * *", "0 0 31 1,2 *", "0 0 31 2 mon"],
)  # fmt: skip
def test_schedules(text: str) -> None:
    assert check_schedule(text) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected five fields"),
        ("nightly", "expected five fields"),
        ("0 2 * *", "expected five fields"),
        ("0 0 2 * * *", "expected five fields"),
        ("@dayly", "did you mean @daily?"),
        ("@reboot", "expected five fields or @hourly"),
        ("60 * * * *", "the minute field of the schedule takes 0 to 59, not '60'"),
        ("* 24 * * *", "the hour field of the schedule takes 0 to 23"),
        ("* * 0 * *", "the day of the month field of the schedule takes 1 to 31"),
        ("* * * 13 *", "the month field of the schedule takes 1 to 12"),
        ("* * * * 8", "the day of the week field of the schedule takes 0 to 7"),
        ("* * * foo *", "the month field"),
        ("*/0 * * * *", "the minute field of the schedule cannot be '*/0'"),
        ("30-10 * * * *", "the minute field of the schedule cannot be '30-10'"),
        ("5/10 * * * *", "the minute field"),
        ("1, * * * *", "the minute field"),
        ("* * L * *", "the day of the month field"),
        ("0 0 30 2 *", "never fires"),
        ("0 0 31 4,6 *", "never fires"),
    ],
)
def test_not_schedules(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        check_schedule(text)


def test_time_zones(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_timezone("UTC") == "UTC"
    assert check_timezone("Europe/Madrid") == "Europe/Madrid"
    with pytest.raises(ValueError, match=r"did you mean Europe/Madrid\?"):
        check_timezone("europe/madird")
    monkeypatch.setattr("backupd.settings.types.available_timezones", set)
    with pytest.raises(ValueError, match="tzdata"):
        check_timezone("../etc/passwd")
