"""Engines: where volumes live and tar jobs run. Each implements `backupd.ports.Engine`."""

from backupd.engine.docker import DockerEngine, DockerOptions
from backupd.engine.mounted import MountedEngine

__all__ = ["DockerEngine", "DockerOptions", "MountedEngine"]
