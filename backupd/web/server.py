"""uvicorn in a thread of its own."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from loguru import logger

from backupd.errors import ConfigError

if TYPE_CHECKING:
    from starlette.types import ASGIApp

_START_SECONDS = 30
_STOP_SECONDS = 5
_MOST_CONNECTIONS = 100


class WebServer:
    """A context: serves between its beginning and its end. ConfigError if the address can't be had.

    `make_app` is called then, not before: importing FastAPI takes half a second.
    """

    def __init__(self, make_app: Callable[[], ASGIApp], host: str, port: int) -> None:
        self._make_app = make_app
        self._host = host
        self._wanted_port = port
        self.port = port

    def __enter__(self) -> Self:
        """Serve from now on; `port` is the one, also if 0 was asked for."""
        self._socket = _listen(self._host, self._wanted_port)
        self.port = self._socket.getsockname()[1]
        try:
            self._start()
        except BaseException:
            self._socket.close()
            raise
        logger.info("serves http://{}:{}", f"[{self._host}]" if ":" in self._host else self._host, self.port)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Serve no more: what is being answered has three seconds."""
        self._server.should_exit = True
        self._thread.join(_STOP_SECONDS)
        self._server.force_exit = True
        self._thread.join(1)
        self._socket.close()

    def _start(self) -> None:
        import uvicorn  # noqa: PLC0415  (as FastAPI)

        config = uvicorn.Config(
            self._make_app(),
            http="h11",
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,  # Guard has one
            server_header=False,
            proxy_headers=False,
            limit_concurrency=_MOST_CONNECTIONS,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=3,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, name="web", daemon=True
        )
        self._thread.start()
        end = time.monotonic() + _START_SECONDS
        while not self._server.started and self._thread.is_alive() and time.monotonic() < end:
            time.sleep(0.01)
        if not self._server.started:
            raise ConfigError(f"the web server on {self._host}:{self.port} did not start")


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as exc:
        raise _refused(host, port, exc) from exc
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(_MOST_CONNECTIONS)
    except OSError as exc:
        listening.close()
        raise _refused(host, port, exc) from exc
    return listening


def _refused(host: str, port: int, exc: OSError) -> ConfigError:
    return ConfigError(
        f"cannot serve HTTP on {host} port {port}: {exc.strerror or exc}",
        hint="web.host and web.port say where, `web: {enabled: false}` does without",
    )
