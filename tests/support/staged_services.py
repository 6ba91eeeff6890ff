"""Containers that exist in memory only: they start, fail, restart and become healthy as a test says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from backupd.errors import SourceError
from backupd.model import Volume
from backupd.services import CommandResult, Health, MountPoint, Service, State, TarStream


def a_service(name: str, *volumes: str, **facts: object) -> Service:
    """A running container of project `shop` that mounts these volumes (named by their sources)."""
    given: dict[str, object] = {
        "id": f"id-{name}",
        "name": name,
        "image": "image",
        "image_id": "sha256:image",
        "state": "running",
        "mounts": tuple(MountPoint("volume", volume, "/data", True) for volume in volumes),
        "project": "shop",
        "service": name,
        "has_health_check": True,
        "started_at": "1",
    }
    return Service(**(given | facts))  # type: ignore[arg-type]


@dataclass
class FakeServices:
    """See Services. `acts` is what was done, in order; `before` is called ahead of every act with its words.

    `fails` says how a service goes wrong when it is started: `exits`, `loops`, `unhealthy`, or `slow`, which is healthy
    at the third look. It is asked at every start, so that it may depend on what is in the volume.
    """

    all: dict[str, Service] = field(default_factory=dict)
    acts: list[str] = field(default_factory=list)
    said: dict[str, list[str]] = field(default_factory=dict)
    fails: Callable[[Service], str] = lambda service: ""
    before: Callable[[str], None] = lambda act: None
    _looks: dict[str, int] = field(default_factory=dict)
    _how: dict[str, str] = field(default_factory=dict)
    _starts: int = 1

    def add(self, *services: Service) -> None:
        self.all |= {service.id: service for service in services}

    def state(self, name: str) -> State:
        return self.all[f"id-{name}"].state

    def users(self, volume: Volume) -> Sequence[Service]:
        return [s for s in self._sorted() if any(mount.source == volume.source for mount in s.mounts)]

    def of_project(self, project: str) -> Sequence[Service]:
        return [service for service in self._sorted() if service.project == project]

    def _sorted(self) -> list[Service]:
        return sorted(self.all.values(), key=lambda service: service.name)

    def inspect(self, service_id: str) -> Service | None:
        return self.all.get(service_id)

    def _act(self, verb: str, service: Service, **facts: object) -> None:
        self.before(f"{verb} {service.name}")
        if service.id not in self.all:
            raise SourceError(f"no such container: {service.name}")
        self.acts.append(f"{verb} {service.name}")
        self.all[service.id] = replace(self.all[service.id], **facts)

    def stop(self, service: Service) -> None:
        assert self.all[service.id].state != "paused", "frozen, it would be killed after its timeout"
        self._act("stop", service, state="exited")
        if service.removed_when_stopped:
            del self.all[service.id]

    def start(self, service: Service) -> None:
        if self.all[service.id].state == "paused":
            raise SourceError("cannot start a paused container, try unpause instead")
        self._starts += 1
        how = self.fails(service)
        facts: dict[str, object] = {"state": "running", "started_at": str(self._starts), "restarts": 0}
        if how == "exits":
            facts |= {"state": "exited", "exit_code": 7}
        elif how == "loops":
            facts |= {"state": "restarting", "restarts": 3, "exit_code": 7}
        self._how[service.id] = how
        self._looks[service.id] = 0
        self._act("start", service, **facts)

    def pause(self, service: Service) -> None:
        self._act("pause", service, state="paused")

    def unpause(self, service: Service) -> None:
        self._act("unpause", service, state="running")

    def health(self, service: Service) -> Health:
        now = self.all.get(service.id)
        if now is None or now.state != "running":
            return "gone"
        how = self._how.get(service.id, "")
        self._looks[service.id] = self._looks.get(service.id, 0) + 1
        if how == "unhealthy" or (how == "slow" and self._looks[service.id] < 3):
            return "unhealthy"
        return "healthy" if now.has_health_check else "running"

    def logs(self, service: Service, lines: int) -> Sequence[str]:
        return self.said.get(service.name, [])[-lines:]

    def run(
        self,
        service: Service,
        command: Sequence[str],
        *,
        user: str | None = None,
        environment: Mapping[str, str] | None = None,
        timeout_seconds: float = 60,
    ) -> CommandResult:
        raise NotImplementedError

    def examine(self, service: Service, volume: Volume, script: str, arguments: Sequence[str] = ()) -> CommandResult:
        raise NotImplementedError

    def tar_from(
        self,
        service: Service,
        command: Sequence[str],
        *,
        user: str,
        environment: Mapping[str, str] | None = None,
        stdin: bytes = b"",
    ) -> TarStream:
        raise NotImplementedError
