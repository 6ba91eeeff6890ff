"""What the daemon does by itself, and when."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from backupd.settings.cron import Schedule
from backupd.settings.stores import Section
from backupd.settings.types import Duration, Timezone, WholeNumber

Overlap = Literal["wait", "skip"]


def _percentage(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("expected a percentage such as 10 or 100")
    return value.strip().removesuffix("%") if isinstance(value, str) else value


class PlanDrillSettings(Section):
    """When a plan's newest snapshot is drilled."""

    schedule: Schedule | None = Field(default=None, title="a schedule")


class PlanVerifySettings(Section):
    """When a plan's snapshots are verified in its stores, and how much of the data is read for it."""

    schedule: Schedule | None = Field(default=None, title="a schedule")
    read_data: Annotated[float, BeforeValidator(_percentage)] = Field(default=0.0, ge=0, le=100, title="a percentage")


class PruneSettings(Section):
    """When stores are pruned, and what prune does besides what the plans' `keep` says."""

    schedule: Schedule | None = Field(default=None, title="a schedule")
    timezone: Timezone | None = Field(default=None, title="a time zone")
    jitter: Duration | None = Field(default=None, title="a duration")
    keep_safety: Duration = Field(default=timedelta(days=14), title="a duration")
    grace: Duration = Field(default=timedelta(days=1), title="a duration")


class DaemonSettings(Section):
    """How `backupd run` behaves. Of `stop_within`, the last part is for aborting what has not finished."""

    stop_within: Duration = Field(default=timedelta(minutes=1), title="a duration")
    parallel: WholeNumber = Field(default=2, ge=1, le=64)


class HistorySettings(Section):
    """How long runs are remembered."""

    keep: Duration = Field(default=timedelta(days=400), title="a duration")
