"""Which containers are PostgreSQL servers with their data in a volume, and where in the container the data are."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from backupd.model import Volume
from backupd.services import Service

# Images by the last part of their name: the official one, Bitnami's, PostGIS, Timescale, pgvector, Citus, Percona, …
_IMAGE = re.compile(
    r"(?:.*/)?(?:postgres|postgresql|postgresql-repmgr|postgis|timescaledb(?:-ha)?|pgvector|pgvecto-rs|citus|pgautoupgrade|"
    r"postgres-ai|vectorchord-postgres|percona-distribution-postgresql|enterprisedb|paradedb)(?::[^/]*)?(?:@.*)?"
)
_VARIABLES = ("PGDATA", "POSTGRESQL_DATA_DIR")
_USUAL_PLACE = re.compile(r"postgres|pgsql|pgdata")


def recognises(service: Service, volume: Volume) -> bool:
    """Whether the container is a PostgreSQL server, or was one, that has its data directory in the volume."""
    mount = service.mount_of(volume)
    if mount is None or not mount.writable:
        return False
    if named := _named_directories(service):
        return any(inside(directory, mount.destination) is not None for directory in named)
    return _IMAGE.fullmatch(service.image) is not None and _USUAL_PLACE.search(mount.destination) is not None


def data_directories(service: Service, volume: Volume) -> tuple[str, ...]:
    """Where in the container the data directory may be, the likeliest first."""
    mount = service.mount_of(volume)
    if mount is None:
        return ()
    named = [directory for directory in _named_directories(service) if inside(directory, mount.destination) is not None]
    return tuple(named) or (
        mount.destination,
        *(f"{mount.destination.rstrip('/')}/{name}" for name in ("data", "pgdata")),
    )


def inside(path: str, directory: str) -> str | None:
    """The path relative to the directory, `.` for the directory itself; None if it is not in there."""
    pure, above = PurePosixPath(path), PurePosixPath(directory)
    return str(pure.relative_to(above)) if pure.is_relative_to(above) else None


def _named_directories(service: Service) -> list[str]:
    return [value for name in _VARIABLES if (value := service.environment.get(name))]
