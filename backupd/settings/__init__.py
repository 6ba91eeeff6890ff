"""The configuration: YAML files, an overlay for each environment, and environment variables, as typed objects."""

from backupd.settings.errors import Problem, SettingsError
from backupd.settings.load import load_settings
from backupd.settings.model import (
    DockerSettings,
    EncryptionSettings,
    KeepSettings,
    LogSettings,
    PlanSettings,
    Settings,
    VolumeSettings,
)
from backupd.settings.show import show
from backupd.settings.stores import LocalStoreSettings, S3StoreSettings, StoreSettings

__all__ = [
    "DockerSettings",
    "EncryptionSettings",
    "KeepSettings",
    "LocalStoreSettings",
    "LogSettings",
    "PlanSettings",
    "Problem",
    "S3StoreSettings",
    "Settings",
    "SettingsError",
    "StoreSettings",
    "VolumeSettings",
    "load_settings",
    "show",
]
