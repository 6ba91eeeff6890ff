"""The configuration: YAML files, an overlay for each environment, and environment variables, as typed objects."""

from backupd.settings.environment import IDENTITY_VARIABLE, PASSPHRASE_VARIABLE
from backupd.settings.errors import Problem, SettingsError
from backupd.settings.load import load_settings
from backupd.settings.model import (
    DockerSettings,
    EncryptionSettings,
    KeepSettings,
    LogSettings,
    PlanSettings,
    Settings,
    TrustSettings,
)
from backupd.settings.observe import AlertSettings, NotificationSettings
from backupd.settings.show import show
from backupd.settings.stores import LocalStoreSettings, S3StoreSettings, StoreSettings
from backupd.settings.volumes import HookSettings, VolumeSettings

__all__ = [
    "IDENTITY_VARIABLE",
    "PASSPHRASE_VARIABLE",
    "AlertSettings",
    "DockerSettings",
    "EncryptionSettings",
    "HookSettings",
    "KeepSettings",
    "LocalStoreSettings",
    "LogSettings",
    "NotificationSettings",
    "PlanSettings",
    "Problem",
    "S3StoreSettings",
    "Settings",
    "SettingsError",
    "StoreSettings",
    "TrustSettings",
    "VolumeSettings",
    "load_settings",
    "show",
]
