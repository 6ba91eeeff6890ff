"""Who is told what, and what is served: notifications, pings, alerts, web."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr

from backupd.model import MIB
from backupd.notify.events import EventName
from backupd.notify.ping import PingUrls
from backupd.notify.templates import BODY, TITLE, check_template
from backupd.settings.stores import Section
from backupd.settings.types import Duration, Name, Secret, Size, WholeNumber

_TOLD: tuple[EventName, ...] = ("failure", "warning", "recovery", "alert")

RunKindName = Literal["backup", "restore", "verify", "drill", "prune", "recover"]


def _apprise_url(secret: SecretStr) -> SecretStr:
    if not re.match(r"[A-Za-z][A-Za-z0-9+.-]*://\S", secret.get_secret_value()):
        raise ValueError(
            "expected a URL of Apprise, such as mailtos://… or slack://… (https://appriseit.com/services/)"
        )
    return secret


def _http_url(secret: SecretStr) -> SecretStr:
    try:
        parts = urlsplit(secret.get_secret_value())
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or not secret.get_secret_value().isprintable():
        raise ValueError("expected a URL that begins with https:// or http://")
    return secret


AppriseUrl = Annotated[Secret, AfterValidator(_apprise_url)]
HttpUrl = Annotated[Secret, AfterValidator(_http_url)]
Template = Annotated[str, AfterValidator(check_template)]
Percentage = Annotated[WholeNumber, Field(ge=0, le=100)]
Growth = Annotated[WholeNumber, Field(ge=0, le=1_000_000)]


class TargetSettings(Section):
    """Somebody who is told."""

    url: AppriseUrl = Field(title="a URL of Apprise")
    events: tuple[EventName, ...] = _TOLD
    plans: tuple[str, ...] = ()
    kinds: tuple[RunKindName, ...] = ()


class NotificationSettings(Section):
    """Who is told what, and how."""

    targets: Mapping[Name, TargetSettings] = Field(default_factory=dict, title="a target")
    title: Template = TITLE
    body: Template = BODY
    manual: bool = False
    timeout: Duration = Field(default=timedelta(seconds=10), title="a duration")
    attempts: WholeNumber = Field(default=3, ge=1, le=10)
    flush_within: Duration = Field(default=timedelta(seconds=15), title="a duration")


class PingSettings(Section):
    """Where a plan's backups are announced to a dead-man's switch."""

    url: HttpUrl | None = Field(default=None, title="a URL")
    start: HttpUrl | None = Field(default=None, title="a URL")
    success: HttpUrl | None = Field(default=None, title="a URL")
    failure: HttpUrl | None = Field(default=None, title="a URL")
    method: Literal["POST", "GET"] = "POST"

    def urls(self) -> PingUrls | None:
        """As pings take them; None: nothing is pinged."""
        url, start, success, failure = map(_revealed, (self.url, self.start, self.success, self.failure))
        return PingUrls.of(url, start, success, failure, self.method) if url or start or success or failure else None


def _revealed(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret else None


class SizeAlertSettings(Section):
    """How far sizes may be from the usual ones; None: as `alerts` says."""

    shrink: Percentage | None = None
    grow: Growth | None = None


class AlertSettings(Section):
    """What is watched between runs."""

    shrink: Percentage = 50
    grow: Growth = 200
    compare_with: WholeNumber = Field(default=5, ge=1, le=100)
    size_at_least: Size = Field(default=10 * MIB, title="a size")
    free_bytes: Size = Field(default=1024 * MIB, title="a size")
    free_percent: Percentage = 5
    check_every: Duration = Field(default=timedelta(minutes=5), title="a duration")
    remind_every: Duration = Field(default=timedelta(days=1), title="a duration")
