"""A service whose answers are written down, and an engine that has a few of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from backupd.drill.options import DrillOptions
from backupd.drill.probes import Subject
from backupd.engine import MountedEngine
from backupd.errors import SourceError
from backupd.model import Volume, VolumeSpec
from backupd.sandbox import Condition, Copy, CopySpec, DirectorySandbox
from backupd.services import CommandResult, MountPoint, NoServices, Service

Answer = Callable[[Sequence[str], Mapping[str, str]], CommandResult]


def ok(stdout: str = "") -> CommandResult:
    return CommandResult(0, stdout, "")


def bad(stderr: str, code: int = 1) -> CommandResult:
    return CommandResult(code, "", stderr)


def service(name: str = "db-1", image: str = "postgres:16", **rest: Any) -> Service:
    defaults: dict[str, Any] = {"id": f"id-{name}", "image_id": "sha256:1", "state": "running", "service": name}
    return Service(name=name, image=image, **(defaults | rest))


@dataclass
class FakeServices(NoServices):
    """Answers commands by `answer`; `used` are the users of every volume."""

    answer: Answer = lambda _command, _environment: ok()
    used: Sequence[Service] = ()
    commands: list[list[str]] = field(default_factory=list)

    def users(self, volume: Volume) -> Sequence[Service]:
        return [user for user in self.used if user.mount_of(volume)]

    def run(
        self,
        service: Service,
        command: Sequence[str],
        *,
        user: str | None = None,
        environment: Mapping[str, str] | None = None,
        timeout_seconds: float = 60,
    ) -> CommandResult:
        self.commands.append(list(command))
        return self.answer(command, environment or {})


def subject(services: FakeServices, **rest: Any) -> Subject:
    defaults: dict[str, Any] = {
        "service": service(),
        "command": ("postgres",),
        "spec": VolumeSpec("v", volume="v"),
        "options": DrillOptions(),
        "known": {},
        "files": {},
        "deadline": time.monotonic() + 60,
    }
    return Subject(services=services, **(defaults | rest))


class FakeSandbox(DirectorySandbox):
    """Directories for volumes; copies that are in the condition that `conditions` gives for their service."""

    conditions: Mapping[str, Sequence[Condition]] = msgspec.field(default_factory=dict)
    copied: list[CopySpec] = msgspec.field(default_factory=list)
    started: list[str] = msgspec.field(default_factory=list)
    seen: dict[str, int] = msgspec.field(default_factory=dict)
    lines: Sequence[str] = ()
    closed: int = 0

    def copy(self, spec: CopySpec) -> Copy:
        if spec.service.image == "gone":
            raise SourceError(f"cannot create a copy of container {spec.service.name}: no such image")
        self.copied.append(spec)
        return Copy(spec.service, spec.service, notes=("read-only",))

    def start(self, copy: Copy) -> None:
        self.started.append(copy.service.name)

    def condition(self, copy: Copy) -> Condition:
        name = copy.service.name
        known = self.conditions.get(name, [Condition("healthy")])
        self.seen[name] = self.seen.get(name, -1) + 1
        return known[min(self.seen[name], len(known) - 1)]

    def log(self, copy: Copy, lines: int) -> Sequence[str]:
        return self.lines

    def close(self) -> None:
        self.closed += 1
        super().close()


class FakeEngine(MountedEngine):
    """Directories for volumes, with services."""

    name = "fake"

    def __init__(self, services: FakeServices, **sandbox: Any) -> None:
        super().__init__()
        self.services = services
        self._sandbox = sandbox
        self.sandboxes: list[FakeSandbox] = []

    def find(self, spec: VolumeSpec) -> Volume:
        found = super().find(spec)
        return Volume(name=found.name, kind=found.kind, source=found.source)

    def sandbox(self, drill: str, directory: Path) -> FakeSandbox:
        self.sandboxes.append(FakeSandbox(directory, **self._sandbox))
        return self.sandboxes[-1]


def mount(source: Path | str, *, writable: bool = True) -> MountPoint:
    return MountPoint("bind", str(source), "/data", writable)
