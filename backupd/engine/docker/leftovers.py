"""Helpers and scratch volumes of backupd processes that are no more."""

from __future__ import annotations

from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Any

import docker
from docker.errors import APIError, NotFound

from backupd.engine.docker.helper import HOME_LABEL, OWNER_LABEL
from backupd.engine.docker.sdk import sdk_errors
from backupd.engine.workspace import Workspace

OVERDUE = timedelta(hours=1)
VOLUME_OVERDUE = timedelta(days=1)  # between its helpers nothing shows that it is used


def remove_helpers(api: docker.APIClient, workspace: Workspace, now: datetime) -> list[str]:
    """Remove those of dead processes that shared our directory; of others those that long since should be gone.

    A process elsewhere may be alive without our seeing its lock, but a living one removes a helper when it ends.
    """
    home = workspace.home()
    removed = []
    with sdk_errors("remove leftover helper containers"):
        for container in api.containers(all=True, filters={"label": [OWNER_LABEL]}):
            labels = container["Labels"]
            if labels.get(HOME_LABEL) == home:
                dead = not workspace.is_alive(labels[OWNER_LABEL])
            else:
                dead = container["State"] != "running" and now - _created(container) > OVERDUE
            if dead and _remove(api, container["Id"]):
                removed.append(f"helper container {container['Names'][0].lstrip('/')}")
    return removed


def remove_volumes(api: docker.APIClient, workspace: Workspace, now: datetime) -> list[str]:
    """Remove scratch volumes of dead processes, by the same rules. One that a container has is not ours to remove."""
    home = workspace.home()
    removed = []
    with sdk_errors("remove leftover scratch volumes"):
        for volume in api.volumes(filters={"label": [OWNER_LABEL]})["Volumes"] or ():
            labels = volume["Labels"]
            if labels.get(HOME_LABEL) == home:
                dead = not workspace.is_alive(labels[OWNER_LABEL])
            else:
                dead = now - datetime.fromisoformat(volume["CreatedAt"]) > VOLUME_OVERDUE
            if dead and _remove_volume(api, volume["Name"]):
                removed.append(f"scratch volume {volume['Name']}")
    return removed


def _remove_volume(api: docker.APIClient, name: str) -> bool:
    try:
        api.remove_volume(name)
    except NotFound:
        return False
    except APIError as exc:
        if exc.status_code != HTTPStatus.CONFLICT:
            raise
        return False
    return True


def _created(container: dict[str, Any]) -> datetime:
    return datetime.fromtimestamp(container["Created"]).astimezone()


def _remove(api: docker.APIClient, number: str) -> bool:
    try:
        api.remove_container(number, force=True, v=True)
    except NotFound:
        return False
    return True
