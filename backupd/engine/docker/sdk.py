"""The connection to the Docker Engine, and what its errors mean."""

from __future__ import annotations

import contextlib
import grp
import socket
from collections.abc import Iterator
from pathlib import Path

import docker
import requests
import urllib3
from docker.errors import APIError, DockerException
from docker.utils import kwargs_from_env

from backupd.errors import EngineUnavailable, SourceError, VolumeMissing

DEFAULT_HOST = "unix:///var/run/docker.sock"
OLDEST_API = (1, 40)
"""Of Docker 19.03: copies of services for drills mount binds with `NonRecursive`, which older engines ignore in
silence, so that what is mounted below could be written. All else came with 1.30 at the latest (`Mounts`).
"""
OLDEST_API_TEXT = "1.40 (Docker 19.03)"


def connect(host: str | None, timeout_seconds: int) -> docker.APIClient:
    """Open a connection; EngineUnavailable says what stands in the way."""
    settings = kwargs_from_env()
    url = host or str(settings.get("base_url") or DEFAULT_HOST)
    if url.startswith(("unix://", "http+unix://")):
        _try_socket(url)
    try:
        api = docker.APIClient(
            base_url=url, version="auto", timeout=timeout_seconds, tls=settings.get("tls", False) if not host else False
        )
    except (DockerException, requests.RequestException) as exc:
        raise EngineUnavailable(
            f"no Docker Engine at {url}: {_one_line(exc)}", hint="is DOCKER_HOST right, and does Docker run there?"
        ) from exc
    version = tuple(int(part) for part in str(api.api_version).split("."))
    if version < OLDEST_API:
        api.close()
        raise EngineUnavailable(
            f"the Docker Engine at {url} is too old: it speaks API {api.api_version}",
            hint=f"update Docker there: backupd needs API {OLDEST_API_TEXT} or newer",
        )
    return api


@contextlib.contextmanager
def sdk_errors(act: str) -> Iterator[None]:
    """Turn what the SDK raises while it is to `act` into a SourceError, or EngineUnavailable if nobody answers."""
    try:
        yield
    except APIError as exc:
        message = f"cannot {act}: {_one_line(exc.explanation or exc)}"
        if "bind source path does not exist" in message:
            raise VolumeMissing(message) from exc
        if "Are you trying to mount a directory onto a file" in message:
            raise VolumeMissing(f"cannot {act}: what is to be mounted is not a directory") from exc
        raise SourceError(message) from exc
    except (DockerException, requests.RequestException, urllib3.exceptions.HTTPError) as exc:
        raise EngineUnavailable(f"cannot {act}: the Docker Engine does not answer ({_one_line(exc)})") from exc


def _try_socket(url: str) -> None:
    """Find out what is wrong with a unix socket, more precisely than the SDK would say."""
    path = Path("/" + url.partition("://")[2].lstrip("/"))
    message = f"no Docker Engine at {url}"
    try:
        with socket.socket(socket.AF_UNIX) as attempt:
            attempt.connect(str(path))
    except FileNotFoundError as exc:
        hint = "start Docker, mount its socket into this container, or set DOCKER_HOST"
        raise EngineUnavailable(f"{message}: there is no such socket", hint=hint) from exc
    except PermissionError as exc:
        raise EngineUnavailable(f"{message}: permission denied", hint=_permission_hint(path)) from exc
    except OSError as exc:
        raise EngineUnavailable(f"{message}: {exc.strerror or exc}", hint="is dockerd running?") from exc


def _permission_hint(path: Path) -> str:
    try:
        gid = path.stat().st_gid
    except PermissionError:
        return f"the directory {path.parent} is closed to this user"
    return f"the socket belongs to group {_group(gid)}: add this user to it (in compose `group_add: ['{gid}']`)"


def _group(gid: int) -> str:
    try:
        return f"{grp.getgrgid(gid).gr_name} ({gid})"
    except KeyError:
        return str(gid)


def _one_line(text: object) -> str:
    return " ".join(str(text).split())
