"""Where this process runs, as the Docker Engine sees it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import docker
from docker.errors import NotFound

from backupd.engine.docker.sdk import sdk_errors

_OWN_FILES = re.compile(r"/containers/([0-9a-f]{64})/(?:hostname|hosts|resolv\.conf) /etc/")
_CGROUP = re.compile(r"(?:docker|containers?|libpod)[-/]([0-9a-f]{64})")


def own_container(api: docker.APIClient) -> dict[str, Any] | None:
    """What the engine knows of the container that this process runs in; None if it runs in none of this engine's."""
    number = own_id()
    if number is None:
        return None
    with sdk_errors("inspect backupd's own container"):
        try:
            return dict(api.inspect_container(number))
        except NotFound:
            return None


def own_id() -> str | None:
    """The id of the container that this process runs in, as far as it can be seen from inside."""
    return container_id(_read("/proc/self/mountinfo"), _read("/proc/self/cgroup"))


def container_id(mountinfo: str, cgroup: str) -> str | None:
    """The id that the kernel's tables betray: Docker mounts three files of its own into each container's /etc."""
    found = _OWN_FILES.search(mountinfo) or _CGROUP.search(cgroup)
    return found[1] if found else None


def on_host(directory: Path, mounts: Sequence[dict[str, Any]]) -> str | None:
    """The path on the engine's host of a directory in a container with these mounts; None if it is on none of them."""
    best: tuple[PurePosixPath, str] | None = None
    for mount in mounts:
        target = PurePosixPath(mount["Destination"])
        if directory.is_relative_to(target) and (best is None or len(target.parts) > len(best[0].parts)):
            best = (target, mount["Source"] if mount["Type"] in {"bind", "volume"} else "")
    if best is None or not best[1]:
        return None
    return str(PurePosixPath(best[1]) / directory.relative_to(best[0]))


def _read(path: str) -> str:
    file = Path(path)
    return file.read_text(errors="replace") if file.exists() else ""
