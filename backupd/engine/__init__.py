"""Engines: where volumes live and tar jobs run. The Docker SDK is imported on first use: it takes half a second."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backupd.engine.mounted import MountedEngine

if TYPE_CHECKING:
    from backupd.engine.docker import DockerEngine, DockerOptions

__all__ = ["DockerEngine", "DockerOptions", "MountedEngine"]


def __getattr__(name: str) -> object:
    if name in {"DockerEngine", "DockerOptions"}:
        from backupd.engine import docker  # noqa: PLC0415  (see above)

        return getattr(docker, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
