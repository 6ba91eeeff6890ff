"""How snapshots are drilled: for each plan when, for each volume how."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from backupd.drill.options import Check, DrillOptions
from backupd.model import MIB
from backupd.sandbox import Limits
from backupd.settings.stores import Section
from backupd.settings.types import Duration, Size, Text, WholeNumber, parse_duration

_SMALLEST_SHARE = 0.01


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as exc:
        raise ValueError(f"expected a regular expression: {exc}") from None
    return text


def _words(value: object) -> object:
    """A command is a list of words: a string would need a shell, which the image may not have."""
    if isinstance(value, str):
        raise ValueError('expected a list of words such as [my-check, --all] (or [sh, -c, "…"]), not one text')
    return value


def _processors(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("expected a number of processors such as 0.5 or 2")
    return value


class CheckSettings(Section):
    """A command in the copy of a service, and what is expected of it."""

    command: Annotated[tuple[str, ...], BeforeValidator(_words)] = Field(title="a list of words", min_length=1)
    service: Text | None = Field(default=None, title="a service")
    user: Text | None = Field(default=None, title="a user")
    expect: Annotated[str, AfterValidator(_pattern)] | None = Field(default=None, title="a regular expression")
    exit_code: WholeNumber = Field(default=0, ge=0, le=255)
    timeout: Duration = Field(default=parse_duration("1m"), title="a duration")

    def check(self) -> Check:
        """As the operation takes it."""
        return Check(self.command, self.service, self.user, self.expect, self.exit_code, self.timeout.total_seconds())


class VolumeDrillSettings(Section):
    """How a volume is drilled."""

    start: bool = True
    services: tuple[Text, ...] = ()
    checks: tuple[CheckSettings, ...] = ()
    memory_limit: Size = Field(default=1024 * MIB, ge=16 * MIB, title="a size")
    cpus: Annotated[float, BeforeValidator(_processors)] = Field(
        default=1.0, ge=_SMALLEST_SHARE, le=1024, title="a number of processors"
    )
    ready_within: Duration = Field(default=parse_duration("5m"), title="a duration")
    steady_for: Duration = Field(default=parse_duration("5s"), title="a duration")
    probe_timeout: Duration = Field(default=parse_duration("15m"), title="a duration")
    largest_shrink: WholeNumber = Field(default=50, ge=0, le=100, title="a percentage")
    sqlite_limit: Size = Field(default=1024 * MIB, title="a size")

    def options(self) -> DrillOptions:
        """As the operation takes them."""
        return DrillOptions(
            start=self.start,
            services=self.services,
            checks=tuple(check.check() for check in self.checks),
            limits=Limits(self.memory_limit, self.cpus),
            ready_seconds=self.ready_within.total_seconds(),
            steady_seconds=self.steady_for.total_seconds(),
            probe_seconds=self.probe_timeout.total_seconds(),
            largest_shrink=self.largest_shrink / 100,
            sqlite_limit_bytes=self.sqlite_limit,
        )
