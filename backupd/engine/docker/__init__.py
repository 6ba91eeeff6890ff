"""Volumes of a Docker host."""

from backupd.engine.docker.engine import DockerEngine
from backupd.engine.docker.options import DockerOptions, Transport

__all__ = ["DockerEngine", "DockerOptions", "Transport"]
