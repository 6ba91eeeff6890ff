"""The answers of the API."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from backupd.history import Outcome, RunKind, Trigger
from backupd.repository import CheckKind, State

Item = TypeVar("Item")
Bytes = Annotated[int, Field(description="bytes", ge=0)]
Seconds = Annotated[float, Field(description="seconds", ge=0)]
Time = Annotated[datetime, Field(description="RFC 3339, UTC")]


class Answer(BaseModel):
    """An answer; more keys may come with later versions."""

    model_config = ConfigDict(frozen=True)


class Problem(Answer):
    """What went wrong."""

    error: str = Field(description="one line")
    detail: list[str] = Field(default=[], description="each parameter that is wrong, and how")


class Page(Answer, Generic[Item]):
    """A part of a list, newest first where there is an order in time."""

    items: list[Item]
    limit: int
    offset: int
    next_offset: int | None = Field(description="where the next page begins; null: there is none")


class Probe(Answer):
    """Whether all is well."""

    status: Literal["ok", "not ready"]
    reasons: list[str] = Field(default=[], description="why not")


class VolumeFigures(Answer):
    """What a backup did with one volume."""

    plain_bytes: Bytes
    new_bytes: Bytes
    stored_bytes: Bytes
    files: int
    warnings: int
    seconds: Seconds
    full: bool = Field(description="whether its archive builds on no other")


class Run(Answer):
    """One run."""

    id: str
    kind: RunKind
    plan: str | None
    part: bool = Field(description="whether it is of volumes that somebody named, and not of the plan as a whole")
    trigger: Trigger
    started: Time
    finished: Time | None
    seconds: Seconds | None
    outcome: Outcome
    snapshot: str | None = Field(description="the id of what it made or was about")
    stores: list[str]
    volumes: dict[str, VolumeFigures]
    downtime: dict[str, float] = Field(description="seconds by container")
    warnings: int
    error: str | None
    exit_code: int = Field(description="of the command that would have done the same")
    notes: list[str]


class Archive(Answer):
    """One volume in a snapshot."""

    volume: str
    full: bool
    consistency: str
    plain_bytes: Bytes
    new_bytes: Bytes
    stored_bytes: Bytes
    files: int
    warnings: int
    moment: Time | None = Field(description="the one that the data are of; null: they were read while written")


class Drill(Answer):
    """The newest drill of a snapshot."""

    id: str
    time: Time
    outcome: Literal["proven", "files", "failed"]
    complete: bool = Field(description="whether all volumes were drilled")
    recovery_seconds: Seconds


class Check(Answer):
    """What is known of a snapshot in one store, from its checks and its last drill."""

    state: State
    problem: str | None = Field(description="what is wrong with it, if it is damaged")
    kind: CheckKind | None = Field(description="how it was checked; null: it never was")
    percent: Annotated[float, Field(description="of the data that was read for that", ge=0, le=100)] | None
    time: Time | None


class Snapshot(Answer):
    """A snapshot, in every store that has it."""

    id: str
    plan: str
    reason: Literal["backup", "safety", "import"]
    part: bool = Field(description="whether it is of volumes that somebody named, and not of the plan as a whole")
    time: Time
    finished: Time
    host: str
    stores: list[str]
    complete: bool = Field(description="whether every volume that had to be in it is")
    trouble: list[str]
    encrypted: bool
    archives: list[Archive]
    missing: dict[str, str] = Field(description="why, by volume that is not in it")
    checks: dict[str, Check] = Field(description="by store that has it")
    drill: Drill | None


class StoreAge(Answer):
    """How old what is said of a store is."""

    store: str
    seen: Time | None = Field(description="null: not looked at yet")
    age_seconds: Seconds | None
    error: str | None = Field(description="why the last look failed")


class Snapshots(Page[Snapshot]):
    """Snapshots, and how old the view of each store is."""

    stores: list[StoreAge]


class Scheduled(Answer):
    """What a schedule starts next."""

    kind: RunKind
    plan: str | None
    schedule: str
    timezone: str
    next_run: Time


class Activity(Answer):
    """A run of the daemon's that is under way, or waits."""

    kind: RunKind
    plan: str | None
    trigger: Trigger
    state: Literal["running", "waiting"]
    since: Time = Field(description="when it began, or was due")
    run: str | None = Field(description="its id; null: it has not begun")
    waits_for: str | None = Field(description="why it has not, in words")


class Plan(Answer):
    """A plan, and how it is."""

    name: str
    volumes: list[str]
    stores: list[str]
    schedule: str | None
    timezone: str
    max_age_seconds: Seconds | None
    next_run: Time | None
    running: bool
    last_run: Run | None = Field(description="the newest backup of the plan as a whole")
    last_success: Time | None = Field(description="when the newest good backup ended")
