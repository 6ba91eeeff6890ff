"""The containers of a Docker host as services."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import docker
from docker.errors import APIError, NotFound

from backupd.engine.docker.commands import run_command
from backupd.engine.docker.consumers import uses
from backupd.engine.docker.helper import JOB_LABEL, READING, Helper, HelperSpec
from backupd.engine.docker.jobs import AttachOutput, PipeOutput
from backupd.engine.docker.scripts import OUT_BY_ATTACH, OUT_BY_PIPE, PIPE, PIPE_PATIENCE_SECONDS
from backupd.engine.docker.sdk import sdk_errors
from backupd.engine.docker.surroundings import Surroundings
from backupd.engine.docker.volumes import data_mount, mountpoint
from backupd.engine.verdict import Complaints
from backupd.model import PROJECT_LABEL, Volume
from backupd.services import CommandResult, Health, MountPoint, Service, TarStream

SERVICE_LABEL = "com.docker.compose.service"
DEPENDS_LABEL = "com.docker.compose.depends_on"

_ORCHESTRATORS = {
    "com.docker.swarm.service.name": "Swarm",
    "io.kubernetes.pod.name": "Kubernetes",
    "com.hashicorp.nomad.alloc_id": "Nomad",
}

_STOP_GRACE_SECONDS = 10

# Under cgroup v1 a container that starts processes all the time may slip through: runc gives up after a while.
_FREEZE_ATTEMPTS = 10
_FREEZE_PAUSE_SECONDS = 0.05

_TMP = {"/tmp": "size=16m,mode=1777"}  # noqa: S108  (in the helper)


class DockerServices:
    """See Services."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._surroundings = surroundings

    @property
    def _api(self) -> docker.APIClient:
        return self._surroundings.api

    def users(self, volume: Volume) -> Sequence[Service]:
        """See Services."""
        place = mountpoint(self._api, volume.source) if volume.kind == "volume" else volume.source
        return self._found(
            {}, lambda container: any(uses(mount, volume, place) for mount in container.get("Mounts") or ())
        )

    def of_project(self, project: str) -> Sequence[Service]:
        """See Services."""
        return self._found({"label": f"{PROJECT_LABEL}={project}"}, lambda _container: True)

    def _found(self, filters: Mapping[str, str], wanted: Callable[[dict[str, Any]], bool]) -> list[Service]:
        own = self._surroundings.own
        own_id = own["Id"] if own else None
        found = []
        with sdk_errors("list containers"):
            for container in self._api.containers(all=True, filters=dict(filters)):
                if container["Id"] == own_id or JOB_LABEL in (container.get("Labels") or {}) or not wanted(container):
                    continue
                service = self.inspect(container["Id"])
                if service is not None:
                    found.append(service)
        return sorted(found, key=lambda service: service.name)

    def inspect(self, service_id: str) -> Service | None:
        """See Services."""
        with sdk_errors(f"inspect container {service_id}"):
            try:
                return _service(self._api.inspect_container(service_id))
            except NotFound:
                return None

    def stop(self, service: Service) -> None:
        """See Services."""
        with sdk_errors(f"stop container {service.name}"):
            timeout = self._api.inspect_container(service.id)["Config"].get("StopTimeout") or _STOP_GRACE_SECONDS
            self._api.stop(service.id, timeout=timeout)

    def start(self, service: Service) -> None:
        """See Services."""
        with sdk_errors(f"start container {service.name}"):
            self._api.start(service.id)

    def pause(self, service: Service) -> None:
        """See Services."""
        with sdk_errors(f"pause container {service.name}"):
            for left in reversed(range(_FREEZE_ATTEMPTS)):
                try:
                    self._api.pause(service.id)
                except APIError as exc:
                    if "already paused" in str(exc):
                        return
                    if "unable to freeze" not in str(exc) or not left:
                        raise
                    time.sleep(_FREEZE_PAUSE_SECONDS)
                else:
                    return

    def unpause(self, service: Service) -> None:
        """See Services."""
        with sdk_errors(f"unpause container {service.name}"):
            try:
                self._api.unpause(service.id)
            except APIError as exc:
                if "is not paused" not in str(exc):
                    raise

    def health(self, service: Service) -> Health:
        """See Services."""
        with sdk_errors(f"inspect container {service.name}"):
            try:
                state = self._api.inspect_container(service.id)["State"]
            except NotFound:
                return "gone"
        if state["Status"] != "running":
            return "gone"
        status = (state.get("Health") or {}).get("Status", "none")
        known: dict[str, Health] = {"healthy": "healthy", "unhealthy": "unhealthy", "starting": "starting"}
        return known.get(status, "running")

    def logs(self, service: Service, lines: int) -> Sequence[str]:
        """See Services."""
        with sdk_errors(f"read the log of container {service.name}"):
            try:
                said = self._api.logs(service.id, stdout=True, stderr=True, tail=lines)
            except NotFound:
                return ()
            except APIError as exc:  # a log driver that only sends away
                if "does not support reading" not in str(exc):
                    raise
                return ()
        return tuple(bytes(said).decode(errors="replace").splitlines()[-lines:])

    def run(
        self,
        service: Service,
        command: Sequence[str],
        *,
        user: str | None = None,
        environment: Mapping[str, str] | None = None,
        timeout_seconds: float = 60,
    ) -> CommandResult:
        """See Services."""
        return run_command(
            self._api, service, command, user=user, environment=environment, timeout_seconds=timeout_seconds
        )

    def examine(self, service: Service, volume: Volume, script: str, arguments: Sequence[str] = ()) -> CommandResult:
        """See Services."""
        spec = HelperSpec(
            image=service.image_id,
            command=["sh", "-c", script, "sh", *arguments],
            mounts=(data_mount(volume, read_only=True),),
            capabilities=READING,
            labels=self._surroundings.labels(),
        )
        said = self._surroundings.run(spec)
        return CommandResult(said.exit_code, said.stdout.decode(errors="backslashreplace"), said.last_line)

    def tar_from(
        self,
        service: Service,
        command: Sequence[str],
        *,
        user: str,
        environment: Mapping[str, str] | None = None,
        stdin: bytes = b"",
    ) -> TarStream:
        """See Services."""
        surroundings = self._surroundings
        nonce, job = uuid.uuid4().hex, uuid.uuid4().hex
        pipe = surroundings.pipe_mount(job) if surroundings.pipes_work() else None
        script = ["sh", "-c", OUT_BY_ATTACH, "sh", nonce]
        if pipe is not None:
            script = ["sh", "-c", OUT_BY_PIPE, "sh", nonce, PIPE, str(PIPE_PATIENCE_SECONDS)]
        spec = HelperSpec(
            image=service.image_id,
            command=[*script, *command],
            mounts=() if pipe is None else (pipe,),
            labels=surroundings.labels(),
            job=job,
            user=user,
            network_mode=f"container:{service.id}",
            environment=environment or {},
            tmpfs=_TMP,
            reads_stdin=bool(stdin),
            stdin=stdin,
        )
        what, complaints = f"{command[0]} beside {service.name}", Complaints("gnu", "out")
        helper = Helper(self._api, surroundings.options, spec)
        if pipe is None:
            return AttachOutput(what, nonce, helper, complaints)
        return PipeOutput(what, nonce, helper, complaints, surroundings.workspace.pipe(job))


def _service(found: dict[str, Any]) -> Service:
    config, labels = found["Config"], found["Config"].get("Labels") or {}
    health, state = config.get("Healthcheck") or {}, found["State"]
    # service:condition:restart, separated by commas
    depends_on = [part.split(":") for part in labels.get(DEPENDS_LABEL, "").split(",") if part]
    return Service(
        id=found["Id"],
        name=found["Name"].lstrip("/"),
        image=config["Image"],
        image_id=found["Image"],
        state=state["Status"],
        mounts=tuple(_mounts(found)),
        project=labels.get(PROJECT_LABEL),
        service=labels.get(SERVICE_LABEL),
        depends_on=tuple(parts[0] for parts in depends_on),
        restarts_with=tuple(parts[0] for parts in depends_on if parts[2:] == ["true"]),
        user=config.get("User") or "",
        labels=labels,
        environment=dict(entry.split("=", 1) for entry in config.get("Env") or () if "=" in entry),
        command=(found.get("Path") or "", *(found.get("Args") or ())),
        has_health_check=bool(health.get("Test")) and health["Test"] != ["NONE"],
        removed_when_stopped=bool((found.get("HostConfig") or {}).get("AutoRemove")),
        started_at=state.get("StartedAt") or "",
        restarts=found.get("RestartCount") or 0,
        exit_code=state.get("ExitCode") or 0,
        orchestrator=next((name for label, name in _ORCHESTRATORS.items() if label in labels), None),
    )


def _mounts(found: dict[str, Any]) -> Iterator[MountPoint]:
    for mount in found.get("Mounts") or ():
        kind = mount.get("Type") or "bind"
        source = mount.get("Name") if kind == "volume" else mount.get("Source")
        yield MountPoint(kind, source or "", mount.get("Destination") or "", bool(mount.get("RW", True)))
