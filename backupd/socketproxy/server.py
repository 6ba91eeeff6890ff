"""The proxy's socket: one request a connection, decided, written anew and passed on; then bytes, both ways."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import socketserver
import threading
from http import HTTPStatus
from pathlib import Path

from loguru import logger

from backupd.errors import EngineUnavailable, SourceError
from backupd.socketproxy.facts import EngineFacts
from backupd.socketproxy.model import Allowed, Refused, Rules
from backupd.socketproxy.policy import decide
from backupd.socketproxy.request import BadRequest, Request, read_request

MOST_CONNECTIONS = 64
HEAD_SECONDS = 30
TAKE_OVER_SECONDS = 300
BUFFER_BYTES = 256 * 1024

# What the Engine says when it takes a connection over: `postContainersAttach`, `postContainerExecStart` in moby.
_STREAM = re.compile(
    rb"HTTP/1\.1 (?:101 [^\r\n]*|200 OK\r\nContent-Type: application/vnd\.docker\.(?:raw|multiplexed)-stream)\r\n"
)


class ProxyServer(socketserver.ThreadingUnixStreamServer):
    """Listens at `listen` for this user alone. Memory: 512 KiB for each of at most 64 connections."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, listen: Path, engine: str, rules: Rules) -> None:
        self.engine = engine
        self.rules = rules
        self.slots = threading.BoundedSemaphore(MOST_CONNECTIONS)
        with contextlib.suppress(FileNotFoundError):
            listen.unlink()
        before = os.umask(0o177)
        try:
            super().__init__(str(listen), _Connection)
        except OSError as exc:
            raise SourceError(f"cannot listen at {listen}: {exc.strerror or exc}") from exc
        finally:
            os.umask(before)


class _Connection(socketserver.BaseRequestHandler):
    server: ProxyServer
    request: socket.socket

    def handle(self) -> None:
        """Never raises: a client that misbehaves or goes away must not end the others' connections."""
        with self.server.slots:
            try:
                self._serve()
            except OSError as exc:
                logger.debug("a connection ended: {}", exc)

    def _serve(self) -> None:
        self.request.settimeout(HEAD_SECONDS)
        try:
            request = read_request(self.request.recv)
        except BadRequest as exc:
            self._refuse("a request", Refused(str(exc), HTTPStatus.BAD_REQUEST))
            return
        if request is None:
            return
        act = f"{request.method} {request.path}"
        try:
            decision = decide(self.server.rules, self._facts(request), request)
            if isinstance(decision, Refused):
                self._refuse(act, decision)
                return
            logger.debug("passed on: {}", act)
            self._pass_on(request, decision)
        except EngineUnavailable as exc:
            self._refuse(act, Refused(str(exc), HTTPStatus.BAD_GATEWAY))

    def _facts(self, request: Request) -> EngineFacts:
        return EngineFacts(self.server.engine, self.server.rules, request.version)

    def _refuse(self, act: str, refused: Refused) -> None:
        if refused.status != HTTPStatus.NOT_FOUND:
            logger.warning("refused {}: {}", act, refused.reason)
        prefix = "" if refused.status == HTTPStatus.NOT_FOUND else "backupd's socket proxy: "
        body = json.dumps({"message": prefix + refused.reason}).encode()
        status = HTTPStatus(refused.status)
        head = f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: application/json\r\n"
        self.request.sendall(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)

    def _pass_on(self, request: Request, allowed: Allowed) -> None:
        with socket.socket(socket.AF_UNIX) as engine:
            try:
                engine.connect(self.server.engine)
            except OSError as exc:
                raise EngineUnavailable(f"no Docker Engine at {self.server.engine}: {exc.strerror or exc}") from exc
            engine.sendall(_written(request, allowed))
            self.request.settimeout(None)
            if allowed.stream and self._is_taken_over(engine):
                sender = threading.Thread(target=_copy, args=(self.request, engine), daemon=True)
                sender.start()
                _copy(engine, self.request)
                for side in (self.request, engine):  # whose other direction may stand still: the Engine no longer reads
                    with contextlib.suppress(OSError):
                        side.shutdown(socket.SHUT_RDWR)
                sender.join()
            elif allowed.stream:
                engine.shutdown(socket.SHUT_WR)
                _copy(engine, self.request)
            else:
                _watch(self.request, engine)
                _copy(engine, self.request)

    def _is_taken_over(self, engine: socket.socket) -> bool:
        """Pass on the head of the Engine's answer; whether it has let go of HTTP, so that what follows is a stream.

        If not, as with a container that is paused, it would read what the client sends for its next request: not one
        byte of the client's may reach it then.
        """
        engine.settimeout(TAKE_OVER_SECONDS)
        head = b""
        while b"\r\n\r\n" not in head and len(head) < BUFFER_BYTES:
            more = engine.recv(4096)
            if not more:
                break
            head += more
        engine.settimeout(None)
        self.request.sendall(head)
        return _STREAM.match(head) is not None


def _written(request: Request, allowed: Allowed) -> bytes:
    upgrade = "Upgrade: tcp\r\nConnection: Upgrade" if allowed.stream and request.upgrade else "Connection: close"
    if allowed.stream and not request.upgrade:
        upgrade = "Connection: keep-alive"
    head = f"{allowed.method} {allowed.target} HTTP/1.1\r\nHost: docker\r\n{upgrade}\r\n"
    body = allowed.body or b""
    if allowed.method == "POST" or body:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


def _copy(source: socket.socket, target: socket.socket) -> None:
    """Until the source ends; then say so. A side that is gone ends it, too."""
    buffer = memoryview(bytearray(BUFFER_BYTES))
    with contextlib.suppress(OSError):
        while count := source.recv_into(buffer):
            target.sendall(buffer[:count])
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def _watch(client: socket.socket, engine: socket.socket) -> None:
    """End a request whose client went away: waiting for a container to end, for instance, could take for ever."""

    def wait() -> None:
        with contextlib.suppress(OSError):
            while client.recv(4096):
                pass  # one request a connection: what follows is not read
        with contextlib.suppress(OSError):
            engine.shutdown(socket.SHUT_RDWR)

    threading.Thread(target=wait, daemon=True).start()
