"""What a Docker Engine says of itself."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from docker.errors import APIError, ImageNotFound

from backupd.engine.docker.images import DEFAULT_IMAGE
from backupd.engine.docker.sdk import OLDEST_API_TEXT, sdk_errors
from backupd.engine.docker.surroundings import Surroundings
from backupd.errors import SourceError
from backupd.facts import EngineFacts

_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{1,6})?\d*(Z|[+-]\d\d:\d\d)")


def engine_facts(surroundings: Surroundings) -> EngineFacts:
    """Ask it. Nothing is pulled, made or changed."""
    api, own = surroundings.api, surroundings.own
    with sdk_errors("ask the engine for its version"):
        version = api.version()
    asked, info = datetime.now(UTC), {}
    try:
        with sdk_errors("ask the engine about itself"):
            info = api.info()
    except SourceError as exc:  # a proxy may not let that through; then the clock is not known
        if not isinstance(exc.__cause__, APIError):
            raise
    name = surroundings.options.helper_image or (str(own["Image"]) if own else DEFAULT_IMAGE)
    return EngineFacts(
        address=surroundings.options.host or api.base_url,
        version=str(version.get("Version", "")),
        api_version=str(api.api_version),
        oldest_api=OLDEST_API_TEXT,
        asked=asked,
        time=_time(str(info.get("SystemTime", ""))),
        rootless=any("rootless" in str(option) for option in info.get("SecurityOptions") or ()),
        own_container=str(own["Name"]).lstrip("/") if own else None,
        image=name,
        image_there=_has(surroundings, name),
    )


def _has(surroundings: Surroundings, name: str) -> bool:
    with sdk_errors(f"inspect the helper image {name}"):
        try:
            surroundings.api.inspect_image(name)  # type: ignore[no-untyped-call]
        except ImageNotFound:
            return False
    return True


def _time(text: str) -> datetime | None:
    found = _TIME.match(text)
    if found is None:
        return None
    return datetime.fromisoformat(f"{found[1]}{found[2] or ''}{'+00:00' if found[3] == 'Z' else found[3]}")
