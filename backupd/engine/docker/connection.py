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


def read_ahead(raw: Any) -> bytes:
    """What came in one piece with the answer's header: it waits in http.client's buffer, where the SDK forgets it.

    A command that ends at once has all of its output there at times. To be called before `own_socket`.
    """
    response = getattr(raw, "_response", None)
    buffered = getattr(getattr(getattr(response, "raw", None), "_fp", None), "fp", None)
    connection = getattr(raw, "_sock", None)
    if buffered is None or connection is None:
        return b""
    patience = connection.gettimeout()
    connection.setblocking(False)  # `peek` reads once if nothing is in the buffer, and must not wait then
    try:
        return bytes(buffered.peek())
    finally:
        connection.settimeout(patience)
