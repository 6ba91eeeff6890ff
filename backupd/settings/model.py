"""The settings as typed objects. Their keys, types and defaults are described in docs/CONFIGURATION.md.

`title` is what a message calls the value when it is missing. Rules between keys are in `rules`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from backupd.crypto import canonical_recipient, canonical_signer
from backupd.errors import UsageError
from backupd.model import MIB, Compression, FullEvery, KeepPolicy, Plan, VolumeSpec
from backupd.notify.events import EventName
from backupd.settings import rules
from backupd.settings.cron import Schedule
from backupd.settings.errors import SettingsError
from backupd.settings.layers import LayerSource
from backupd.settings.messages import explain
from backupd.settings.observe import AlertSettings, NotificationSettings, PingSettings, SizeAlertSettings
from backupd.settings.schedules import (
    DaemonSettings,
    HistorySettings,
    Overlap,
    PlanDrillSettings,
    PlanVerifySettings,
    PruneSettings,
)
from backupd.settings.stores import Section, StoreSettings
from backupd.settings.types import (
    AnyPath,
    Duration,
    FullEveryValue,
    LogFormat,
    LogLevel,
    Name,
    PlanName,
    Size,
    Text,
    Timezone,
    WholeNumber,
)
from backupd.settings.volumes import HookSettings, VolumeSettings, hooks
from backupd.settings.web import WebSettings
from backupd.settings.words import did_you_mean

_MOST_THREADS = 64
_DEFAULT_THREADS = 8  # each adds some 10 MiB; beyond that disks and networks are the limit

T = TypeVar("T")

Count = Annotated[WholeNumber, Field(ge=1, le=1_000_000)]


def _cpus() -> int:
    return min(len(os.sched_getaffinity(0)) or 1, _DEFAULT_THREADS)


def _project(name: str) -> str:
    if not name[:1].isalnum() or name != name.lower() or not name.replace("-", "").replace("_", "").isalnum():
        raise ValueError("expected the name of a Compose project: lower-case letters, digits, `_` and `-`")
    return name


class DockerSettings(Section):
    """How the Docker engine is used. `pipe_dir` None leaves the place to the engine's wiring."""

    host: Text | None = Field(default=None, title="the address of a Docker Engine")
    helper_image: Text | None = Field(default=None, title="an image")
    transport: Literal["auto", "fifo", "attach"] = "auto"
    pipe_dir: AnyPath | None = Field(default=None, title="a directory")
    memory_limit: Size = Field(default=1024 * MIB, ge=64 * MIB, title="a size")
    pids_limit: WholeNumber = Field(default=64, ge=8, le=32_768)


class EncryptionSettings(Section):
    """Whom new snapshots are encrypted for: public keys. Nobody: they are not encrypted."""

    recipients: tuple[Annotated[str, AfterValidator(canonical_recipient)], ...] = ()


class TrustSettings(Section):
    """Whose snapshots are believed besides this machine's own. Nobody: whoever signed what is there at first."""

    signers: tuple[Annotated[str, AfterValidator(canonical_signer)], ...] = ()


class KeepRules(Section):
    """Which snapshots of a plan are kept: those that any rule wants, and never fewer than `at_least`.

    `proven`, `prefer_proven` and `at_least` are no rules by themselves: without a drill they want next to nothing.
    """

    last: Count | None = None
    hourly: Count | None = None
    daily: Count | None = None
    weekly: Count | None = None
    monthly: Count | None = None
    yearly: Count | None = None
    within: Duration | None = None
    proven: Count | None = None
    prefer_proven: bool = False
    at_least: Count = 1

    def policy(self) -> KeepPolicy | None:
        """As retention takes it; None without any rule: all are kept."""
        said = {name: getattr(self, name) for name in KeepRules.model_fields}
        return KeepPolicy(**said) if any(said[rule] is not None for rule in rules.KEEP_RULES) else None


class KeepSettings(KeepRules):
    """The rules of a plan; a store of `stores` has rules of its own instead."""

    stores: Mapping[Name, KeepRules] = Field(default_factory=dict, title="a store")

    def policy_of(self, store: str) -> KeepPolicy | None:
        """The rules that hold in a store."""
        return self.stores.get(store, self).policy()


class PlanSettings(Section):
    """What is backed up together, when, where to, and for how long."""

    schedule: Schedule | None = Field(default=None, title="a schedule")
    timezone: Timezone | None = Field(default=None, title="a time zone")
    jitter: Duration | None = Field(default=None, title="a duration")
    overlap: Overlap = "wait"
    catch_up: bool = True
    max_age: Duration | None = Field(default=None, title="a duration")
    volumes: tuple[str, ...] = Field(default=(), title="a list of volumes")
    stores: tuple[str, ...] = Field(title="a list of stores", min_length=1)
    compression: Literal["zstd", "gzip", "none"] = "zstd"
    compression_level: Annotated[WholeNumber, Field(ge=1, le=22)] | None = None
    full_every: FullEveryValue = Field(default=FullEvery(timedelta(days=7)), title="a duration")
    together: bool = False
    pre: tuple[HookSettings, ...] = ()
    post: tuple[HookSettings, ...] = ()
    keep: KeepSettings | None = None
    drill: PlanDrillSettings = PlanDrillSettings()
    notify: tuple[EventName, ...] | None = None
    ping: PingSettings = PingSettings()
    alerts: SizeAlertSettings = SizeAlertSettings()
    verify: PlanVerifySettings = PlanVerifySettings()

    def keep_in(self, store: str) -> KeepPolicy | None:
        """Which of its snapshots are kept in a store; None: all of them."""
        return self.keep.policy_of(store) if self.keep else None


class RestoreSettings(Section):
    """How a restore deals with services."""

    healthy_within: Duration = Field(default=timedelta(minutes=5), title="a duration")


class LogSettings(Section):
    """What is logged and how."""

    level: LogLevel = "info"
    format: LogFormat = "auto"


class Settings(BaseSettings):
    """The whole configuration. Made by `load_settings`; SettingsError if anything is wrong with it."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True)

    project: Annotated[str, AfterValidator(_project)] | None = Field(default=None, title="a Compose project")
    engine: Literal["docker", "mounted"] = "docker"
    docker: DockerSettings = DockerSettings()
    state_dir: AnyPath = Field(default=Path("/var/lib/backupd"), title="a directory")
    threads: WholeNumber = Field(default_factory=_cpus, ge=1, le=_MOST_THREADS)
    stores: Mapping[Name, StoreSettings] = Field(title="a store", min_length=1)
    volumes: Mapping[Name, VolumeSettings] = Field(default_factory=dict, title="a volume")
    encryption: EncryptionSettings = EncryptionSettings()
    trust: TrustSettings = TrustSettings()
    plans: Mapping[PlanName, PlanSettings] = Field(default_factory=dict, title="a plan")
    restore: RestoreSettings = RestoreSettings()
    prune: PruneSettings = PruneSettings()
    daemon: DaemonSettings = DaemonSettings()
    history: HistorySettings = HistorySettings()
    lock_wait: Duration = Field(default=timedelta(minutes=5), title="a duration")
    log: LogSettings = LogSettings()
    notifications: NotificationSettings = NotificationSettings()
    alerts: AlertSettings = AlertSettings()
    web: WebSettings = WebSettings()

    _origins: Mapping[str, str] = PrivateAttr(default_factory=dict)

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)

    @property
    def origins(self) -> Mapping[str, str]:
        """Where each value comes from: dotted key to file, environment variable or `default`."""
        return self._origins

    def set_origins(self, origins: Mapping[str, str]) -> None:
        """Called once, by `load_settings`."""
        self._origins = dict(origins)

    def volume_spec(self, name: str) -> VolumeSpec:
        """A volume as the engines take it; UsageError if there is none of that name."""
        return _entry(self.volumes, name, "volume").spec(name)

    def plan(self, name: str) -> Plan:
        """A plan as the operations take it; UsageError if there is none of that name."""
        plan = _entry(self.plans, name, "plan")
        return Plan(
            name=name,
            volumes=tuple(self.volume_spec(volume) for volume in plan.volumes),
            stores=plan.stores,
            compression=Compression(plan.compression, plan.compression_level),
            full_every=plan.full_every,
            together=plan.together,
            pre=hooks(plan.pre),
            post=hooks(plan.post),
            keep={store: policy for store in plan.stores if (policy := plan.keep_in(store)) is not None},
            timezone=plan.timezone or "UTC",
        )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """One source a layer, the last layer winning; plain keyword arguments where there are no layers."""
        del env_settings, dotenv_settings, file_secret_settings  # the environment is a layer of its own
        layers = init_settings().get("layers")
        if layers is None:
            return (init_settings,)
        return tuple(LayerSource(settings_cls, layer) for layer in reversed(layers))

    @model_validator(mode="wrap")
    @classmethod
    def _everything_at_once(cls, data: Any, handler: ModelWrapValidatorHandler[Settings]) -> Settings:
        """Judge the values and the rules between them together, so that all problems are told at once."""
        data = rules.with_default_plan(data)
        problems = list(rules.broken(data))
        try:
            settings = handler(data)
        except ValidationError as exc:
            raise SettingsError([*explain(exc, cls), *problems]) from None
        if problems:
            raise SettingsError(problems)
        return settings


def _entry(entries: Mapping[str, T], name: str, noun: str) -> T:
    if name not in entries:
        raise UsageError(
            f"there is no {noun} {name!r} in the configuration{did_you_mean(name, entries)}",
            hint=f"there are: {', '.join(entries)}",
        )
    return entries[name]
