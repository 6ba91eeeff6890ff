"""Sandboxes of a Docker host: scratch volumes, copies of containers, and a network that ends where it begins.

Everything carries three labels: the drill's id, the process that made it and the directory in which that shows that it
lives, as helpers do. So what a killed process left is found and told from what a living one uses.
"""

from __future__ import annotations

import contextlib
import re
import uuid
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import docker
from docker.errors import APIError, NotFound
from docker.types import Mount

from backupd.engine.docker.copyconfig import Frame, copy_config
from backupd.engine.docker.helper import HOME_LABEL, JOB_LABEL, OWNER_LABEL, READING, HelperSpec
from backupd.engine.docker.sdk import sdk_errors
from backupd.engine.docker.surroundings import Surroundings
from backupd.engine.workspace import Workspace
from backupd.errors import BackupdError, SourceError
from backupd.model import Volume
from backupd.sandbox import Condition, Copy, CopySpec, Limits
from backupd.services import Health, Services

DRILL_LABEL = "backupd.drill"

OVERDUE = timedelta(days=2)
_HEALTH: Mapping[str, Health] = {"healthy": "healthy", "unhealthy": "unhealthy", "starting": "starting"}

# Internal: nothing is routed out of it. Without an address of its own on the bridge: on an internal network of Docker's
# making, containers reach every port that the host listens on, published ports of the original among them (measured
# on 20.10).
_NETWORK_OPTIONS = {"com.docker.network.bridge.inhibit_ipv4": "true"}

_LOOK = "/look"
_LOOKING_SECONDS = 20
# Sockets of the host can be talked to through a read-only mount as well.
_HARMLESS = f"""
strange=$(timeout {_LOOKING_SECONDS} find {_LOOK} -xdev ! -type f ! -type d ! -type l) || exit 3
[ -z "$strange" ]
"""


class DockerSandbox:
    """See Sandbox."""

    def __init__(self, surroundings: Surroundings, services: Services, drill: str) -> None:
        self._surroundings = surroundings
        self._services = services
        self._drill = drill
        self._resources = ExitStack()
        self._network: str | None = None

    @property
    def _api(self) -> docker.APIClient:
        return self._surroundings.api

    def _labels(self) -> dict[str, str]:
        return {**self._surroundings.labels(), DRILL_LABEL: self._drill}

    def _name(self, part: str) -> str:
        """A name of the drill's own. Clashes are excluded by the last digits: parts are made fit."""
        fit = re.sub(r"[^a-zA-Z0-9_.-]", "-", part)[:60]
        return f"backupd-drill-{self._drill[-8:]}-{fit}-{uuid.uuid4().hex[:4]}"

    def volume(self, name: str) -> Volume:
        """See Sandbox."""
        full = self._name(name)
        self._resources.callback(remove_volume, self._api, full)  # by name, before there is anything to be left
        with sdk_errors(f"create the scratch volume {full}"):
            self._api.create_volume(full, labels=self._labels())
        return Volume(name=name, kind="volume", source=full, driver="local")

    def directory(self, volume: Volume) -> Path | None:
        """See Sandbox: the host's files are not this process's."""
        del volume
        return None

    def copy(self, spec: CopySpec) -> Copy:
        """See Sandbox."""
        original = spec.service
        with sdk_errors(f"inspect container {original.name}"):
            try:
                found = self._api.inspect_container(original.id)
            except NotFound as exc:
                raise SourceError(f"container {original.name} is gone") from exc
        name = self._name(original.service or original.name)
        made = copy_config(
            found,
            Frame(
                name=name,
                network=self._network_name(),
                labels={**self._labels(), JOB_LABEL: self._drill},
                volumes=spec.volumes,
                limits=self._within_reach(spec.limits),
                extra=spec.extra,
                usable=self._usable,
            ),
        )
        self._resources.callback(remove_container, self._api, name)
        with sdk_errors(f"create a copy of container {original.name}"):
            self._api.create_container_from_config(made.config, name)  # type: ignore[no-untyped-call]
        service = self._services.inspect(name)
        if service is None:
            raise SourceError(f"the copy of container {original.name} was removed at once")
        words = (*(made.config.get("Entrypoint") or ()), *(made.config.get("Cmd") or ()))
        return Copy(service, original, words, made.notes)

    def start(self, copy: Copy) -> None:
        """See Sandbox."""
        with sdk_errors(f"start a copy of container {copy.original.name}"):
            self._api.start(copy.service.id)

    def condition(self, copy: Copy) -> Condition:
        """See Sandbox."""
        with sdk_errors(f"inspect the copy of container {copy.original.name}"):
            try:
                state = self._api.inspect_container(copy.service.id)["State"]
            except NotFound:
                return Condition("gone")
        if state["Status"] != "running":
            return Condition("gone", state.get("ExitCode"), bool(state.get("OOMKilled")))
        return Condition(_HEALTH.get((state.get("Health") or {}).get("Status", "none"), "running"))

    def log(self, copy: Copy, lines: int) -> Sequence[str]:
        """See Sandbox."""
        with sdk_errors(f"read the log of the copy of {copy.original.name}"), contextlib.suppress(NotFound):
            said = self._api.logs(copy.service.id, tail=lines)
            return bytes(said).decode(errors="backslashreplace").splitlines()
        return ()

    def close(self) -> None:
        """See Sandbox: the containers first, then what they use."""
        self._resources.close()

    def _network_name(self) -> str:
        if self._network is None:
            name = self._name("net")
            self._resources.callback(remove_network, self._api, name)
            with sdk_errors("create the drill's network"):
                self._api.create_network(
                    name, driver="bridge", internal=True, options=_NETWORK_OPTIONS, labels=self._labels()
                )
                made = self._api.inspect_network(name)
            if not made.get("Internal") or not _NETWORK_OPTIONS.items() <= (made.get("Options") or {}).items():
                raise SourceError("the engine did not make the drill's network as it has to be: nothing was started")
            self._network = name
        return self._network

    def _within_reach(self, limits: Limits) -> Limits:
        with sdk_errors("ask the engine for its processors"):
            return Limits(limits.memory_bytes, min(limits.cpus, float(self._api.info()["NCPU"])))

    def _usable(self, source: str) -> bool:
        """Whether what lies at a path of the host is files and nothing else, and few enough to look at all of them."""
        spec = HelperSpec(
            self._surroundings.image(),
            ["sh", "-c", _HARMLESS],
            (Mount(target=_LOOK, source=source, type="bind", read_only=True),),
            capabilities=READING,
            labels=self._surroundings.labels(),
        )
        try:
            return self._surroundings.run(spec).exit_code == 0
        except SourceError:  # it is not there (any more), or cannot be mounted
            return False


def remove_container(api: docker.APIClient, name: str) -> None:
    """Kill and remove a container with its nameless volumes, if there is one."""
    with sdk_errors(f"remove container {name}"), contextlib.suppress(NotFound):
        try:
            api.remove_container(name, force=True, v=True)
        except APIError as exc:
            if "already in progress" not in str(exc):
                raise
            api.wait(name, condition="removed")


def remove_network(api: docker.APIClient, name: str) -> None:
    """Remove a network, if there is one."""
    with sdk_errors(f"remove network {name}"), contextlib.suppress(NotFound):
        api.remove_network(name)


def remove_volume(api: docker.APIClient, name: str) -> None:
    """Remove a volume, if there is one."""
    with sdk_errors(f"remove volume {name}"), contextlib.suppress(NotFound):
        api.remove_volume(name, force=True)


def remove_sandboxes(api: docker.APIClient, workspace: Workspace, now: datetime) -> list[str]:
    """Remove what dead processes that shared our directory had put up for drills, and what others did days ago."""
    removed: list[str] = []
    failed: BackupdError | None = None
    with sdk_errors("list leftovers of drills"):
        wanted = {"label": [DRILL_LABEL]}
        containers = api.containers(all=True, filters=wanted)
        networks = api.networks(filters=wanted)
        volumes = api.volumes(filters=wanted)["Volumes"] or []
    found = [
        *(("container", remove_container, box["Id"], box["Names"][0].lstrip("/"), box) for box in containers),
        *(("network", remove_network, net["Id"], net["Name"], net) for net in networks),
        *(("volume", remove_volume, volume["Name"], volume["Name"], volume) for volume in volumes),
    ]
    for noun, remove, number, name, thing in found:
        if not _is_left(thing, workspace, now):
            continue
        try:
            remove(api, number)
        except BackupdError as exc:
            failed = failed or exc
        else:
            removed.append(f"{noun} {name} of a drill")
    if failed is not None:
        raise failed
    return removed


def _is_left(thing: Mapping[str, Any], workspace: Workspace, now: datetime) -> bool:
    labels = thing.get("Labels") or {}
    if labels.get(HOME_LABEL) == workspace.home():
        return not workspace.is_alive(labels[OWNER_LABEL])
    made = _made(thing)
    return made is not None and now - made > OVERDUE


def _made(thing: Mapping[str, Any]) -> datetime | None:
    """When: containers say it in seconds, networks and volumes in words, with up to nine digits of a second."""
    said = thing.get("Created") or thing.get("CreatedAt")
    if isinstance(said, int):
        return datetime.fromtimestamp(said).astimezone()
    try:
        made = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", str(said)))
    except ValueError:
        return None
    return made.astimezone()
