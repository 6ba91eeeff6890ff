"""The raw connection below an attached or executed command."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

from backupd.errors import SourceError


def own_socket(raw: Any, resources: contextlib.ExitStack) -> socket.socket:
    """A socket of our own over the SDK's connection: blocking, and one that can be half closed.

    `resources` closes both. SourceError where the connection is encrypted.
    """
    resources.callback(raw.close)
    response = getattr(raw, "_response", None)  # the SDK's way of keeping the connection open
    if response is not None:
        resources.callback(response.close)
    if not hasattr(raw, "fileno") or "ssl" in type(getattr(raw, "_sock", raw)).__module__:
        raise SourceError(
            "the connection to the Docker Engine is encrypted, and attaching through TLS is not supported",
            hint="use the engine's unix socket, or an ssh tunnel to it",
        )
    connection = socket.socket(fileno=socket.dup(raw.fileno()))
    resources.callback(connection.close)
    connection.setblocking(True)
    return connection
