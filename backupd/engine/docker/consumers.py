"""Who uses a volume."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from typing import Any

import docker
from docker.errors import NotFound

from backupd.engine.docker.helper import JOB_LABEL
from backupd.engine.docker.sdk import sdk_errors
from backupd.engine.docker.volumes import mountpoint
from backupd.model import Consumer, Volume

ALIVE = ["running", "paused", "restarting"]


def find_consumers(api: docker.APIClient, volume: Volume, own_id: str | None) -> Sequence[Consumer]:
    """Containers that are alive and mount it, without backupd's own container and helpers.

    A directory is also used through a mount of one above or below it. For a named volume only what lies in it counts:
    tools that mount all of Docker's directory, to watch it, are not its consumers.
    """
    place = mountpoint(api, volume.source) if volume.kind == "volume" else volume.source
    found = []
    with sdk_errors("list containers"):
        for container in api.containers(all=True, filters={"status": ALIVE}):
            if container["Id"] == own_id or JOB_LABEL in (container.get("Labels") or {}):
                continue
            mounts = [mount for mount in container.get("Mounts") or () if uses(mount, volume, place)]
            if mounts:
                writable = any(mount.get("RW", True) for mount in mounts)
                found.append(Consumer(container["Names"][0].lstrip("/"), _image(api, container), writable))
    return sorted(found, key=lambda consumer: consumer.name)


def uses(mount: dict[str, Any], volume: Volume, place: str | None) -> bool:
    """Whether a mount is of the volume, which lies at `place` on the host."""
    if volume.kind == "volume" and mount.get("Type") == "volume":
        return bool(mount.get("Name") == volume.source)
    source = mount.get("Source") or ""
    if not source or place is None:
        return False
    return _within(source, place) or (volume.kind == "bind" and _within(place, source))


def _within(path: str, directory: str) -> bool:
    path, directory = posixpath.normpath(path), posixpath.normpath(directory)
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def _image(api: docker.APIClient, container: dict[str, Any]) -> str:
    """The name that it was started by; a list has the id instead once the name has moved on."""
    try:
        return str(api.inspect_container(container["Id"])["Config"]["Image"])
    except NotFound:
        return str(container["Image"])
