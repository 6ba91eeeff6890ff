"""Volumes as typed settings, and the commands that are run around them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from backupd.model import ConsistencyName, Hook, VolumeSpec
from backupd.settings.drill import VolumeDrillSettings
from backupd.settings.observe import SizeAlertSettings
from backupd.settings.stores import Section
from backupd.settings.types import AnyPath, Duration, PathMark, Secret, Text


def _exclude(pattern: str) -> str:
    if pattern.removeprefix("./").strip("/") in {"", ".", ".."} or "\0" in pattern:
        raise ValueError(f"{pattern!r} names no file: expected a shell pattern such as *.log or cache/tmp")
    return pattern


def _command(value: object) -> object:
    """A command as text is one for the shell."""
    if isinstance(value, str) and value.strip():
        return ("sh", "-c", value)
    if not isinstance(value, list | tuple) or not value:
        raise ValueError("expected a command: text for the shell, or a list of a program and its arguments")
    return value


class HookSettings(Section):
    """A command that is run in a container."""

    service: Text = Field(title="the service to run it in")
    command: Annotated[tuple[str, ...], BeforeValidator(_command)] = Field(title="a command")
    user: Text | None = Field(default=None, title="a user")
    timeout: Duration = timedelta(minutes=5)

    @property
    def hook(self) -> Hook:
        """As the operations take it."""
        return Hook(self.service, self.command, self.user, self.timeout.total_seconds())


class VolumeSettings(Section):
    """A volume: exactly one of `volume` and `path` is set."""

    volume: Text | None = Field(default=None, title="the name of a Docker volume")
    path: Annotated[AnyPath, PathMark(only_engine="mounted")] | None = Field(default=None, title="a directory")
    optional: bool = False
    exclude: tuple[Annotated[str, AfterValidator(_exclude)], ...] = ()
    consistency: ConsistencyName = "auto"
    user: Text | None = Field(default=None, title="a user")
    password: Secret | None = Field(default=None, title="a password", min_length=1)
    pre: tuple[HookSettings, ...] = ()
    post: tuple[HookSettings, ...] = ()
    drill: VolumeDrillSettings = VolumeDrillSettings()
    alerts: SizeAlertSettings = SizeAlertSettings()

    def spec(self, name: str) -> VolumeSpec:
        """As the operations take it."""
        return VolumeSpec(
            name,
            self.volume,
            str(self.path) if self.path else None,
            self.optional,
            self.exclude,
            self.consistency,
            self.user,
            self.password.get_secret_value() if self.password else None,
            hooks(self.pre),
            hooks(self.post),
            frozenset(self.model_fields_set),
        )


def hooks(settings: Sequence[HookSettings]) -> tuple[Hook, ...]:
    """As the operations take them."""
    return tuple(hook.hook for hook in settings)
