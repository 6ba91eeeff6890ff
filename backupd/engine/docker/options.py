"""How the Docker engine is to be used."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from msgspec import Struct

from backupd.model import MIB

Transport = Literal["auto", "fifo", "attach"]


class DockerOptions(Struct, frozen=True):
    """`pipe_directory` is the process's own corner for pipes and locks, best on a file system shared with the engine.

    `host` None means DOCKER_HOST, else the default socket; `project` the compose project whose volumes are meant;
    `helper_image` None this process's own image when it runs in a container, else alpine. The memory limit leaves
    room for GNU tar's table of hard links and delayed directories. `timeout_seconds` bounds a single API call, never
    a tar job.
    """

    pipe_directory: Path
    host: str | None = None
    project: str | None = None
    helper_image: str | None = None
    transport: Transport = "auto"
    memory_limit_bytes: int = 1024 * MIB
    pids_limit: int = 64
    timeout_seconds: int = 60
