"""Commands in running containers."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence

import docker
from docker.errors import NotFound

from backupd.engine.docker.connection import own_socket, read_ahead
from backupd.engine.docker.frames import Frames
from backupd.engine.docker.sdk import sdk_errors
from backupd.errors import SourceError
from backupd.services import CommandResult, Service

KEPT_BYTES = 1024 * 1024


class _Kept:
    """The first bytes of a stream."""

    def __init__(self) -> None:
        self.data = bytearray()

    def feed(self, data: bytes) -> None:
        self.data += data[: KEPT_BYTES - len(self.data)]

    def text(self) -> str:
        return self.data.decode(errors="backslashreplace")


def run_command(
    api: docker.APIClient,
    service: Service,
    command: Sequence[str],
    *,
    user: str | None,
    environment: Mapping[str, str] | None,
    timeout_seconds: float,
) -> CommandResult:
    """See Services.run."""
    deadline = time.monotonic() + timeout_seconds
    act = f"run {command[0]} in container {service.name}"
    stdout, stderr = _Kept(), _Kept()
    with contextlib.ExitStack() as resources:
        with sdk_errors(act):
            try:
                number = api.exec_create(
                    service.id, list(command), user=user or "", environment=dict(environment or {}), stdin=False
                )["Id"]
            except NotFound as exc:
                raise SourceError(f"cannot {act}: there is no such container") from exc
            raw = api.exec_start(number, socket=True)
            early = read_ahead(raw)
            connection = own_socket(raw, resources)
        frames = Frames(connection, stderr.feed, early)
        buffer = memoryview(bytearray(64 * 1024))
        while True:
            left = deadline - time.monotonic()
            try:
                connection.settimeout(max(left, 0.001))
                count = frames.readinto(buffer)
            except TimeoutError:
                left = -1
            if left < 0:
                raise SourceError(f"cannot {act}: it takes longer than {timeout_seconds:g} s, and may still be running")
            if not count:
                break
            stdout.feed(bytes(buffer[:count]))
    with sdk_errors(f"learn how {command[0]} in container {service.name} ended"):
        code = _exit_code(api, number, deadline)
    if code is None:
        raise SourceError(f"cannot {act}: the container was stopped meanwhile")
    return CommandResult(code, stdout.text(), stderr.text())


def _exit_code(api: docker.APIClient, number: str, deadline: float) -> int | None:
    """The engine may learn a little later than we do that the command has ended."""
    while True:
        state = api.exec_inspect(number)
        if not state["Running"]:
            code = state["ExitCode"]
            return None if code is None else int(code)
        if time.monotonic() > deadline:
            return None
        time.sleep(0.01)
