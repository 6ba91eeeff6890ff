"""What the daemon serves over HTTP."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr

from backupd.settings.stores import Section
from backupd.settings.types import Duration, Secret, Text, WholeNumber

_SHORTEST_TOKEN = 16
_TOKEN = re.compile(r"[!-~]+")


def _token(secret: SecretStr) -> SecretStr:
    text = secret.get_secret_value()
    if len(text) < _SHORTEST_TOKEN or not _TOKEN.fullmatch(text):
        raise ValueError(
            f"expected at least {_SHORTEST_TOKEN} printable ASCII characters without blanks: `openssl rand -hex 32`"
        )
    return secret


class WebSettings(Section):
    """What the daemon serves over HTTP."""

    enabled: bool = True
    host: Text = Field(default="127.0.0.1", title="an address")
    port: WholeNumber = Field(default=8750, ge=0, le=65_535)
    token: Annotated[Secret, AfterValidator(_token)] | None = Field(default=None, title="a token")
    allowed_hosts: tuple[Text, ...] = ()
    refresh: Duration = Field(default=timedelta(minutes=15), title="a duration")
