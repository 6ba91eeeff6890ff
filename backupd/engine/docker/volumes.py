"""Docker volumes: found by compose's labels or by name, recorded, created again."""

from __future__ import annotations

import contextlib
import difflib
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import docker
from docker.errors import NotFound
from docker.types import Mount

from backupd.engine.docker.helper import DATA
from backupd.engine.docker.sdk import sdk_errors
from backupd.errors import SourceError, VolumeMissing
from backupd.model import PROJECT_LABEL, VOLUME_LABEL, Volume

CONFIG_HASH_LABEL = "com.docker.compose.config-hash"

MASK = "********"
_PASSWORD = re.compile(r"(?i)\b(pass|password|passwd|secret)=[^,]*")


def find_volume(api: docker.APIClient, name: str, wanted: str, project: str | None) -> Volume:
    """The volume that compose calls `wanted` in `project`, else the one of exactly that name."""
    if project is not None:
        labels = [f"{PROJECT_LABEL}={project}", f"{VOLUME_LABEL}={wanted}"]
        found = _list(api, labels)
        if len(found) > 1:
            names = ", ".join(sorted(volume["Name"] for volume in found))
            raise SourceError(
                f"volume {wanted!r} of project {project!r} could be any of {names}",
                hint="give the full name of the one that is meant",
            )
        if found:
            return _volume(name, found[0])
    exact = inspect_volume(api, name, wanted)
    if exact is None:
        of_project = f" in compose project {project!r}" if project else ""
        raise VolumeMissing(f"there is no Docker volume {wanted!r}{of_project}", hint=_near(api, wanted))
    return exact


def volumes_of(api: docker.APIClient, project: str) -> Sequence[Volume]:
    """All volumes of a Compose project, by their full names, which are also what they are called."""
    found = _list(api, [f"{PROJECT_LABEL}={project}"])
    return sorted((_volume(volume["Name"], volume) for volume in found), key=lambda volume: volume.source)


def inspect_volume(api: docker.APIClient, name: str, source: str) -> Volume | None:
    """The Docker volume called `source` as it is now."""
    with sdk_errors(f"inspect volume {source}"):
        try:
            return _volume(name, api.inspect_volume(source))
        except NotFound:
            return None


def create_volume(api: docker.APIClient, volume: Volume) -> None:
    """Create it as recorded, but for compose's config hash: compose adopts a volume without one, and offers to delete
    one whose hash does not fit the compose file of the day.
    """
    if any(MASK in value for value in volume.options.values()):
        raise SourceError(
            f"volume {volume.source} had a password among its options, which is not kept in snapshots",
            hint="create the volume yourself, as its compose file has it, then restore again",
        )
    labels = {key: value for key, value in volume.labels.items() if key != CONFIG_HASH_LABEL}
    with sdk_errors(f"create volume {volume.source}"):
        api.create_volume(volume.source, volume.driver or None, dict(volume.options), labels)


@contextlib.contextmanager
def scratch_volume(api: docker.APIClient, labels: Mapping[str, str]) -> Iterator[Volume]:
    """A new volume, removed with the end of the block; the labels tell whose it was if that does not come."""
    name = f"backupd-scratch-{uuid.uuid4().hex[:12]}"
    with sdk_errors("create a scratch volume"):
        created = api.create_volume(name, labels=dict(labels))
    try:
        yield _volume("scratch", created)
    finally:
        with sdk_errors(f"remove the scratch volume {name}"), contextlib.suppress(NotFound):
            api.remove_volume(name, force=True)


def data_mount(volume: Volume, *, read_only: bool) -> Mount:
    """The volume as every helper has it."""
    if volume.kind == "directory":
        raise SourceError(
            f"{volume} is a directory of the machine where it was backed up by the mounted engine",
            hint="set `engine: mounted`, or restore into a Docker volume with --into",
        )
    if volume.kind == "volume":  # no_copy: an empty volume must not be filled from the image's /data
        return Mount(target=DATA, source=volume.source, type="volume", read_only=read_only, no_copy=True)
    return Mount(target=DATA, source=volume.source, type="bind", read_only=read_only)


def remove_volume(api: docker.APIClient, volume: Volume) -> None:
    """Remove it; the engine refuses if any container refers to it."""
    with sdk_errors(f"remove volume {volume.source}"):
        try:
            api.remove_volume(volume.source)
        except NotFound:
            return


def _without_passwords(options: dict[str, str]) -> dict[str, str]:
    """Mount options as they may be written down: a manifest is no place for the password of a file server."""
    return {key: _PASSWORD.sub(rf"\1={MASK}", value) for key, value in options.items()}


def mountpoint(api: docker.APIClient, source: str) -> str | None:
    """Where the engine keeps the volume's files, if it is a driver that says so."""
    with sdk_errors(f"inspect volume {source}"):
        try:
            return str(api.inspect_volume(source).get("Mountpoint") or "") or None
        except NotFound:
            return None


def _volume(name: str, found: dict[str, Any]) -> Volume:
    return Volume(
        name=name,
        kind="volume",
        source=found["Name"],
        driver=found["Driver"],
        options=_without_passwords(found.get("Options") or {}),
        labels=found.get("Labels") or {},
    )


def _list(api: docker.APIClient, labels: Sequence[str] = ()) -> list[dict[str, Any]]:
    with sdk_errors("list volumes"):
        return list(api.volumes(filters={"label": list(labels)} if labels else None)["Volumes"] or [])


def _near(api: docker.APIClient, wanted: str) -> str:
    volumes = _list(api)
    same = [volume for volume in volumes if (volume.get("Labels") or {}).get(VOLUME_LABEL) == wanted]
    if same:
        places = ", ".join(f"{volume['Name']} (project {volume['Labels'].get(PROJECT_LABEL)})" for volume in same[:5])
        return f"other projects have it: {places}; is `project` right?"
    names = [volume["Name"] for volume in volumes]
    near = [name for name in names if wanted in name] or difflib.get_close_matches(wanted, names, n=5, cutoff=0.5)
    return f"names like it: {', '.join(sorted(near)[:5])}" if near else "`docker volume ls` shows what there is"
