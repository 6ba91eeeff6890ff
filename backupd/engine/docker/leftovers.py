"""Helpers of backupd processes that are no more."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import docker
from docker.errors import NotFound

from backupd.engine.docker.helper import HOME_LABEL, OWNER_LABEL
from backupd.engine.docker.sdk import sdk_errors
from backupd.engine.docker.workspace import Workspace

OVERDUE = timedelta(hours=1)


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


def _created(container: dict[str, Any]) -> datetime:
    return datetime.fromtimestamp(container["Created"]).astimezone()


def _remove(api: docker.APIClient, number: str) -> bool:
    try:
        api.remove_container(number, force=True, v=True)
    except NotFound:
        return False
    return True
