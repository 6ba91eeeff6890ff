"""The connection to the Docker Engine, and what its errors mean."""

from __future__ import annotations

import contextlib
import grp
from collections.abc import Iterator
from pathlib import Path

import docker
import requests
import urllib3
from docker.errors import APIError, DockerException
from docker.utils import kwargs_from_env

from backupd.errors import EngineUnavailable, SourceError, VolumeMissing

DEFAULT_HOST = "unix:///var/run/docker.sock"
OLDEST_API = (1, 40)  # Docker 19.03


def connect(host: str | None, timeout_seconds: int) -> docker.APIClient:
    """Open a connection; EngineUnavailable says what stands in the way."""
    settings = kwargs_from_env()
    url = host or str(settings.get("base_url") or DEFAULT_HOST)
    try:
        api = docker.APIClient(
            base_url=url, version="auto", timeout=timeout_seconds, tls=settings.get("tls", False) if not host else False
        )
    except (DockerException, requests.RequestException) as exc:
        raise _unavailable(url, exc) from exc
    version = tuple(int(part) for part in str(api.api_version).split("."))
    if version < OLDEST_API:
        api.close()
        raise EngineUnavailable(
            f"the Docker Engine at {url} speaks API {api.api_version}, which is too old",
            hint=f"backupd needs API {'.'.join(map(str, OLDEST_API))} (Docker 19.03) or newer",
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
        raise SourceError(message) from exc
    except (DockerException, requests.RequestException, urllib3.exceptions.HTTPError) as exc:
        raise EngineUnavailable(f"cannot {act}: the Docker Engine does not answer ({_one_line(exc)})") from exc


def _unavailable(url: str, exc: Exception) -> EngineUnavailable:
    message = f"no Docker Engine at {url}"
    if not url.startswith(("unix://", "http+unix://", "/")):
        return EngineUnavailable(f"{message}: {_one_line(exc)}", hint="is DOCKER_HOST right, and its port open?")
    socket = Path("/" + url.partition("://")[2].lstrip("/") if "://" in url else url)
    try:
        status = socket.stat()
    except FileNotFoundError:
        hint = "start Docker, mount its socket into this container, or set DOCKER_HOST"
        return EngineUnavailable(f"{message}: there is no such socket", hint=hint)
    except PermissionError:
        return EngineUnavailable(f"{message}: its directory is closed to this user")
    if "PermissionError" in repr(exc):
        group = _group(status.st_gid)
        return EngineUnavailable(
            f"{message}: permission denied",
            hint=f"the socket belongs to group {group}: add this user to it (compose: `group_add: [{status.st_gid}]`)",
        )
    return EngineUnavailable(f"{message}: {_one_line(exc)}", hint="the socket is there: is dockerd running?")


def _group(gid: int) -> str:
    try:
        return f"{grp.getgrgid(gid).gr_name} ({gid})"
    except KeyError:
        return str(gid)


def _one_line(text: object) -> str:
    return " ".join(str(text).split())
