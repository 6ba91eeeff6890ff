"""Services that are not there: containers as data, which remember what was done to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from backupd.errors import SourceError
from backupd.model import Volume
from backupd.services import CommandResult, Health, MountPoint, NoServices, Service


def service(name: str, *volumes: str, **rest: object) -> Service:
    """A running container that mounts these directories, as a service of that name of the project `shop`."""
    mounts = tuple(MountPoint("bind", volume, f"/mnt/{number}", True) for number, volume in enumerate(volumes))
    fields: dict[str, object] = {
        "project": "shop",
        "service": name,
        "mounts": mounts,
        "image": f"{name}:1",
        "state": "running",
    }
    return Service(id=f"id-{name}", name=name, image_id="sha256:0", **(fields | rest))  # type: ignore[arg-type]


@dataclass
class FakeServices(NoServices):
    """`acts` is what happened, in order. `refusing` holds acts that fail; `before` is called with each act first."""

    containers: dict[str, Service] = field(default_factory=dict)
    acts: list[str] = field(default_factory=list)
    refusing: set[str] = field(default_factory=set)
    before: Callable[[str], object] | None = None
    results: dict[str, CommandResult] = field(default_factory=dict)
    healths: dict[str, Health] = field(default_factory=dict)

    def add(self, *services: Service) -> None:
        self.containers.update({service.id: service for service in services})

    def users(self, volume: Volume) -> Sequence[Service]:
        return [found for found in self.containers.values() if found.mount_of(volume)]

    def of_project(self, project: str) -> Sequence[Service]:
        return [found for found in self.containers.values() if found.project == project]

    def inspect(self, service_id: str) -> Service | None:
        return next((found for found in self.containers.values() if service_id in {found.id, found.name}), None)

    def stop(self, service: Service) -> None:
        self._act("stop", service, "exited")

    def start(self, service: Service) -> None:
        self._act("start", service, "running")

    def pause(self, service: Service) -> None:
        self._act("pause", service, "paused")

    def unpause(self, service: Service) -> None:
        self._act("unpause", service, "running")

    def health(self, service: Service) -> Health:
        found = self.inspect(service.id)
        if found is None or found.state != "running":
            return "gone"
        return self.healths.get(service.name, "running")

    def run(
        self,
        service: Service,
        command: Sequence[str],
        *,
        user: str | None = None,
        environment: Mapping[str, str] | None = None,
        timeout_seconds: float = 60,
    ) -> CommandResult:
        act = f"run {' '.join(command)} in {service.name}"
        self._note(act)
        if service.state != "running":
            raise SourceError(f"container {service.name} is {service.state}")
        return self.results.get(act, CommandResult(0, "", ""))

    def _act(self, verb: str, service: Service, state: str) -> None:
        self._note(f"{verb} {service.name}")
        if service.id not in self.containers:
            raise SourceError(f"there is no container {service.name}")
        self.containers[service.id] = replace(self.containers[service.id], state=state)

    def _note(self, act: str) -> None:
        self.acts.append(act)
        if self.before is not None:
            self.before(act)
        if act in self.refusing:
            raise SourceError(f"cannot {act}")
