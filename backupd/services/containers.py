"""Containers as services: what is known of them, and what may be asked of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import ClassVar, Literal, Protocol, Self

from msgspec import Struct, field

from backupd.model import TarReport, Volume
from backupd.records import Discreet

State = Literal["created", "running", "paused", "restarting", "removing", "exited", "dead"]
Health = Literal["healthy", "unhealthy", "starting", "running", "gone"]

ALIVE: frozenset[State] = frozenset({"running", "paused", "restarting"})


class MountPoint(Struct, frozen=True):
    """Where a container has a volume: `source` is the volume's name for kind `volume`, else a path on the host."""

    kind: str
    source: str
    destination: str
    writable: bool


class Service(Discreet, frozen=True):
    """A container. `image` is what it was started by, `image_id` what that was then.

    `depends_on` holds names of services of the same Compose project, `restarts_with` those of them that it asks to be
    restarted with (`restart: true`). `environment` and `command`, the entrypoint with its arguments, may hold secrets
    and are kept out of logs, manifests and representations. `started_at` is the engine's word for when it last started:
    another one, another run. `restarts` counts what the engine did by itself since. `orchestrator` is who else starts
    and stops it, such as Swarm.
    """

    _hidden: ClassVar = (
        "labels",
        "environment",
        "command",
    )

    id: str
    name: str
    image: str
    image_id: str
    state: State
    mounts: tuple[MountPoint, ...] = ()
    project: str | None = None
    service: str | None = None
    depends_on: tuple[str, ...] = ()
    restarts_with: tuple[str, ...] = ()
    user: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    has_health_check: bool = False
    removed_when_stopped: bool = False
    started_at: str = ""
    restarts: int = 0
    exit_code: int = 0
    orchestrator: str | None = None

    @property
    def alive(self) -> bool:
        """Whether it may write: a paused container may, as soon as somebody unpauses it."""
        return self.state in ALIVE

    def mount_of(self, volume: Volume) -> MountPoint | None:
        """Where it has the volume, None if not by that name (but through a mount above or below it)."""
        return next((mount for mount in self.mounts if mount.source == volume.source), None)

    def writes(self, volume: Volume) -> bool:
        """Whether it has the volume open for writing; said of one that is not found by name, to be on the safe side."""
        mounts = [mount for mount in self.mounts if mount.source == volume.source]
        return not mounts or any(mount.writable for mount in mounts)


class CommandResult(Struct, frozen=True):
    """How a command in a container ended. Bounded: at most 1 MiB of each stream is kept."""

    exit_code: int
    stdout: str
    stderr: str


class TarStream(Protocol):
    """As `ports.TarOutput`."""

    def readinto(self, buffer: memoryview) -> int:
        """See TarOutput."""
        ...

    def finish(self) -> TarReport:
        """See TarOutput."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None: ...


class Services(Protocol):
    """What may be asked of the containers of an engine. Thread-safe. SourceError if the engine refuses.

    The acts are idempotent: stopping what is stopped, or starting what runs, is not an error. None of them is journaled
    here: `backupd.quiesce` does that.
    """

    def users(self, volume: Volume) -> Sequence[Service]:
        """The containers in any state that mount the volume, by name; without backupd's own and its helpers."""
        ...

    def of_project(self, project: str) -> Sequence[Service]:
        """All containers of a Compose project in any state, by name; without backupd's own and its helpers."""
        ...

    def inspect(self, service_id: str) -> Service | None:
        """A container as it is now, by id or name; None if there is none."""
        ...

    def stop(self, service: Service) -> None:
        """Stop it as `docker stop` does, with its own signal and stop timeout; waits for its end."""
        ...

    def start(self, service: Service) -> None:
        """Start a stopped one. Does not wait for its health."""
        ...

    def pause(self, service: Service) -> None:
        """Freeze all its processes; nothing of it runs when this returns."""
        ...

    def unpause(self, service: Service) -> None:
        """Let it go on."""
        ...

    def health(self, service: Service) -> Health:
        """How it is now; `running` where it has no health check, `gone` if it does not run."""
        ...

    def logs(self, service: Service, lines: int) -> Sequence[str]:
        """The last lines that it wrote; none where the engine can't tell."""
        ...

    def run(
        self,
        service: Service,
        command: Sequence[str],
        *,
        user: str | None = None,
        environment: Mapping[str, str] | None = None,
        timeout_seconds: float = 60,
    ) -> CommandResult:
        """Run a command in a running container, as its own user unless another is given.

        SourceError if it cannot be started or takes longer; it may go on in the container then, which the error says.
        """
        ...

    def examine(self, service: Service, volume: Volume, script: str, arguments: Sequence[str] = ()) -> CommandResult:
        """Run a POSIX shell script in a helper of the service's own image, the volume read-only as working directory.

        It may read everything there, has no network, and is limited as all helpers are; whether the service runs makes
        no difference. Of stderr the last line is kept.
        """
        ...

    def tar_from(
        self,
        service: Service,
        command: Sequence[str],
        *,
        user: str,
        environment: Mapping[str, str] | None = None,
        stdin: bytes = b"",
    ) -> TarStream:
        """Start a helper of the service's own image, in its network namespace, whose stdout is a tar stream.

        It has no volumes, no capabilities and a read-only root file system; a /tmp of 16 MiB. The rules of TarOutput.
        `stdin`, at most 4 KiB, is for secrets, which the environment would show to everyone who may inspect containers;
        it is not followed by an end of file.
        """
        ...
