"""One helper container, from its creation to its removal."""

from __future__ import annotations

import contextlib
import socket
import uuid
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from types import TracebackType
from typing import Any, ClassVar, Self

import docker
from docker.errors import APIError, NotFound
from docker.types import LogConfig, Mount
from msgspec import Struct, field

from backupd.engine.docker.connection import own_socket
from backupd.engine.docker.options import DockerOptions
from backupd.engine.docker.sdk import sdk_errors
from backupd.engine.tarcommand import ENVIRONMENT
from backupd.errors import SourceError
from backupd.records import Discreet

DATA = "/data"
PIPES = "/pipes"
SCRATCH = "/scratch"
JOB_LABEL = "backupd.job"
OWNER_LABEL = "backupd.owner"
HOME_LABEL = "backupd.home"

READING = ("DAC_READ_SEARCH",)
COPYING = ("CHOWN", "DAC_READ_SEARCH", "FOWNER", "SETGID", "SETUID")
WRITING = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "MKNOD", "SETFCAP")


class HelperSpec(Discreet, frozen=True):
    """What a helper is to run, and on what. `command` holds the program and all its arguments.

    `stdin` is sent as soon as the helper runs, and must fit into a pipe.
    """

    _hidden: ClassVar = ("stdin",)

    image: str
    command: Sequence[str]
    mounts: Sequence[Mount] = ()
    binds: Mapping[str, str] = field(default_factory=dict)
    capabilities: Sequence[str] = ()
    reads_stdin: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    job: str = field(default_factory=lambda: uuid.uuid4().hex)
    user: str = "0:0"
    network_mode: str = "none"
    environment: Mapping[str, str] = field(default_factory=dict)
    tmpfs: Mapping[str, str] = field(default_factory=dict)
    stdin: bytes = b""


class Ending(Struct, frozen=True):
    """How a helper ended."""

    exit_code: int
    out_of_memory: bool


class Helper:
    """A context manager: entering creates, attaches and starts the container, leaving kills and removes it.

    It has no network unless it is given a service's, no logging, a read-only root file system, no capabilities but
    those asked for and no way to gain any. `connection` carries stdin one way, stdout and
    stderr (as in `frames`) the other.
    """

    connection: socket.socket

    def __init__(self, api: docker.APIClient, options: DockerOptions, spec: HelperSpec) -> None:
        self._api = api
        self._options = options
        self._spec = spec
        self.name = f"backupd-{spec.job[:8]}"
        self._resources = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self._resources.callback(self._remove)  # by name, so that nothing escapes between creation and here
        try:
            with sdk_errors(f"start a helper container from image {self._spec.image}"):
                self._create()
                self._attach()
                self._api.start(self.name)
                if self._spec.stdin:
                    self.connection.sendall(self._spec.stdin)
        except BaseException:
            self._resources.close()
            raise
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._resources.close()

    def _create(self) -> None:
        self._api.create_container(
            self._spec.image,
            name=self.name,
            entrypoint=list(self._spec.command),
            command=[],
            user=self._spec.user,
            working_dir=DATA if self._spec.mounts or self._spec.binds else "/",
            environment={**ENVIRONMENT, **self._spec.environment},
            labels={**self._spec.labels, JOB_LABEL: self._spec.job},
            stdin_open=self._spec.reads_stdin,
            network_disabled=self._spec.network_mode == "none",
            healthcheck={"test": ["NONE"]},
            host_config=self._host_config(),
        )

    def _host_config(self) -> dict[str, Any]:
        return self._api.create_host_config(
            mounts=list(self._spec.mounts),
            binds=[f"{source}:{target}" for source, target in self._spec.binds.items()],
            network_mode=self._spec.network_mode,
            read_only=True,
            tmpfs=dict(self._spec.tmpfs),
            cap_drop=["ALL"],
            cap_add=list(self._spec.capabilities),
            security_opt=["no-new-privileges"],
            mem_limit=self._options.memory_limit_bytes,
            memswap_limit=self._options.memory_limit_bytes,
            pids_limit=self._options.pids_limit,
            log_config=LogConfig(type="none"),
        )

    def _attach(self) -> None:
        wanted = {"stream": 1, "stdout": 1, "stderr": 1, "stdin": int(self._spec.reads_stdin)}
        raw = self._api.attach_socket(self.name, wanted)
        self.connection = own_socket(raw, self._resources)  # nothing was read ahead: the container is not started yet

    def hang_up(self) -> None:
        """End the connection both ways, so that whoever reads it sees its end."""
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def wait(self) -> Ending:
        """Wait for the end of a helper that has closed its streams."""
        with sdk_errors("learn how the helper container ended"):
            try:
                self._api.wait(self.name, timeout=self._options.timeout_seconds)
                state = self._api.inspect_container(self.name)["State"]
            except NotFound as exc:
                raise SourceError("the helper container was removed while it worked") from exc
        return Ending(int(state["ExitCode"]), bool(state["OOMKilled"]))

    def _remove(self) -> None:
        with sdk_errors(f"remove the helper container {self.name}"), contextlib.suppress(NotFound):
            try:
                self._api.remove_container(self.name, force=True, v=True)
            except APIError as exc:
                if exc.status_code != HTTPStatus.CONFLICT or "already in progress" not in str(exc):
                    raise
                self._api.wait(self.name, timeout=self._options.timeout_seconds, condition="removed")
