"""Images for tests: the official ones where a registry answers, else made from Debian packages.

A root file system is put together once and kept as a tar under `.build/`; loading it takes a second or two. Tags carry
a hash of the recipe, so that an engine which outlives the tests is not filled with copies, nor serves an old one.
BACKUPD_TEST_IMAGES says which: `auto`, `official` (fail without a registry) or `debian` (ask none).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Self

import docker
import requests
from docker.errors import DockerException, ImageNotFound

from tests.support.apt import NotInstallable, apt_lock, update
from tests.support.dockerd import Host, NoEngine

CACHE = Path(__file__).resolve().parents[2] / ".build" / "test-images"
ENTRYPOINTS = Path(__file__).with_name("entrypoints")

TOOLS = ("dash", "coreutils", "tar", "findutils", "grep", "sed", "util-linux", "libc-bin")
UNWANTED = (
    *("adduser", "apt", "debconf", "debianutils", "dpkg", "gcc-12-base", "init-system-helpers", "install-info"),
    *("libc-l10n", "libfile-find-rule-perl", "libjson-perl", "libllvm", "libnumber-compare-perl", "libperl"),
    *("libsemanage", "libsepol", "libtext-glob-perl", "libz3", "locales", "openssl", "passwd", "perl"),
    *("postgresql-client-common", "postgresql-common", "sensible-utils", "ssl-cert", "sysvinit", "ucf", "usrmerge"),
)
KEPT = ("HEALTHCHECK",)  # the published images have none, and tests wait for it
LEFT_OUT = ("./usr/share/doc/*", "./usr/share/man/*", "./usr/share/locale/*", "./usr/lib/postgresql/*/lib/bitcode/*")
USERS = {"root": 0, "daemon": 1, "postgres": 999, "redis": 998, "nobody": 65534}


@dataclass(frozen=True)
class Recipe:
    """How an image is made. `alias` is the tag that it gets in a private engine, where nobody else is confused.

    `official` is the published image that serves instead, with the lines of `dockerfile` that begin as one of KEPT.
    """

    packages: tuple[str, ...]
    official: str | None = None
    busybox: bool = False
    entrypoint: str | None = None
    dockerfile: tuple[str, ...] = ()
    alias: str | None = None
    directories: tuple[str, ...] = field(default=())


RECIPES = {
    "alpine": Recipe(
        packages=("busybox-static",),
        official="alpine:3.20",
        busybox=True,
        alias="alpine:latest",
        dockerfile=('CMD ["sh"]',),
    ),
    "helper": Recipe(packages=(*TOOLS, "attr", "acl", "libcap2-bin", "python3"), dockerfile=('CMD ["sh"]',)),
    "postgres": Recipe(
        packages=(*TOOLS, "bash", "postgresql"),
        official="postgres:15",
        entrypoint="postgres.sh",
        alias="postgres:15",
        directories=("var/lib/postgresql/data", "docker-entrypoint-initdb.d", "run/postgresql"),
        dockerfile=(
            "ENV PATH=/usr/local/bin:/usr/lib/postgresql/15/bin:/usr/bin:/usr/sbin PGDATA=/var/lib/postgresql/data",
            "ENV LANG=C.UTF-8",
            "VOLUME /var/lib/postgresql/data",
            'ENTRYPOINT ["docker-entrypoint.sh"]',
            "STOPSIGNAL SIGINT",
            "EXPOSE 5432",
            "HEALTHCHECK --interval=1s --timeout=5s --retries=60 CMD pg_isready -q -h 127.0.0.1",
            'CMD ["postgres"]',
        ),
    ),
    "redis": Recipe(
        packages=(*TOOLS, "redis-server"),
        official="redis:7",
        entrypoint="redis.sh",
        alias="redis:7-alpine",
        directories=("data",),
        dockerfile=(
            "VOLUME /data",
            "WORKDIR /data",
            'ENTRYPOINT ["docker-entrypoint.sh"]',
            "EXPOSE 6379",
            "HEALTHCHECK --interval=1s --timeout=5s --retries=60 CMD redis-cli ping",
            'CMD ["redis-server"]',
        ),
    ),
}


class Images:
    """The test images of one engine; `tag(name)` loads one the first time that it is asked for."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._client = docker.DockerClient(base_url=host.url, version="auto", timeout=120)
        self._ready: dict[str, str] = {}
        self._wanted = os.environ.get("BACKUPD_TEST_IMAGES", "auto")

    def tag(self, name: str) -> str:
        if name not in self._ready:
            self._ready[name] = self._load(name, RECIPES[name])
        return self._ready[name]

    def _load(self, name: str, recipe: Recipe) -> str:
        digest = _digest(name, recipe)
        tag = f"backupd-test/{name}:{digest}"
        try:
            self._client.images.get(tag)
        except ImageNotFound:
            dockerfile = "\n".join(self._published(recipe) or self._made(name, recipe, digest)).encode()
            self._client.images.build(fileobj=BytesIO(dockerfile), tag=tag, rm=True)
        if self._host.private and recipe.alias:
            self._client.images.get(tag).tag(*recipe.alias.split(":"))
        return tag

    def _published(self, recipe: Recipe) -> list[str]:
        """A Dockerfile upon the official image; empty if there is none, or no registry that hands it out."""
        if recipe.official is None or self._wanted == "debian":
            return []
        try:
            self._client.images.pull(recipe.official)
        except (DockerException, requests.RequestException):
            if self._wanted == "official":
                raise
            self._wanted = "debian"  # it would refuse the others as well
            return []
        return [f"FROM {recipe.official}", *(line for line in recipe.dockerfile if line.startswith(KEPT))]

    def _made(self, name: str, recipe: Recipe, digest: str) -> list[str]:
        """A Dockerfile upon what Debian's packages hold."""
        base = f"backupd-test/{name}-base"
        self._client.api.import_image_from_file(str(_rootfs(name, recipe, digest)), repository=base, tag=digest)
        return [f"FROM {base}:{digest}", *recipe.dockerfile]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._client.close()


def _digest(name: str, recipe: Recipe) -> str:
    script = (ENTRYPOINTS / recipe.entrypoint).read_bytes() if recipe.entrypoint else b""
    return hashlib.sha256(Path(__file__).read_bytes() + name.encode() + script).hexdigest()[:12]


def _rootfs(name: str, recipe: Recipe, digest: str) -> Path:
    CACHE.mkdir(parents=True, exist_ok=True)
    wanted = CACHE / f"{name}-{digest}.tar"
    with _locked(CACHE / f"{name}.lock"):
        if wanted.exists():
            return wanted
        with tempfile.TemporaryDirectory(prefix="backupd-image-") as scratch:
            root = Path(scratch, "root")
            _unpack(_download(name, recipe.packages), root)
            _finish(root, recipe)
            partial = wanted.with_suffix(".partial")
            _run("tar", "-C", str(root), "--numeric-owner", "--sort=name", "-cf", str(partial), ".")
        for old in CACHE.glob(f"{name}-*.tar"):
            old.unlink()
        partial.rename(wanted)
    return wanted


def _download(name: str, packages: tuple[str, ...]) -> list[Path]:
    if shutil.which("apt-get") is None:
        raise NoEngine(f"the test image {name!r} is made from Debian packages, and there is no apt-get here")
    archives = CACHE / "debs" / name
    (archives / "partial").mkdir(parents=True, exist_ok=True)
    try:
        with apt_lock():
            update()
    except NotInstallable as exc:
        raise NoEngine(f"a test image can't be made: {exc}") from exc
    options = {
        "Dir::State::status": "/dev/null",  # as for an empty machine: libc and all
        "Dir::Cache::archives": str(archives),
        "APT::Sandbox::User": "root",
        "Debug::NoLocking": "1",
    }
    arguments = [argument for key, value in options.items() for argument in ("-o", f"{key}={value}")]
    _run("apt-get", "-y", "-qq", "-d", "--no-install-recommends", *arguments, "install", *packages)
    return sorted(deb for deb in archives.glob("*.deb") if not deb.name.startswith(UNWANTED))


def _unpack(debs: list[Path], root: Path) -> None:
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    excludes = [f"--exclude={pattern}" for pattern in LEFT_OUT]
    for deb in debs:
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE) as source:
            command = ["tar", "-x", "--keep-directory-symlink", "-C", str(root), *excludes]
            subprocess.run(command, stdin=source.stdout, check=True)


def _finish(root: Path, recipe: Recipe) -> None:
    for directory in ("etc", "dev", "proc", "sys", "run", "tmp", "root", "usr/local/bin", *recipe.directories):
        (root / directory).mkdir(parents=True, exist_ok=True)
    (root / "tmp").chmod(0o1777)
    (root / "var").mkdir(exist_ok=True)
    shutil.rmtree(root / "var/run", ignore_errors=True)
    (root / "var/run").symlink_to("/run")  # as the base-files package's own script does it
    accounts = [f"{user}:x:{number}:{number}::/:/bin/sh\n" for user, number in USERS.items()]
    (root / "etc/passwd").write_text("".join(accounts))
    (root / "etc/group").write_text("".join(f"{user}:x:{number}:\n" for user, number in USERS.items()))
    (root / "etc/nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files dns\n")
    if recipe.busybox:
        _link_applets(root)
    else:
        (root / "usr/bin/sh").unlink(missing_ok=True)
        (root / "usr/bin/sh").symlink_to("dash")
        _run("ldconfig", "-r", str(root))
    if recipe.entrypoint:
        entrypoint = root / "usr/local/bin/docker-entrypoint.sh"
        shutil.copyfile(ENTRYPOINTS / recipe.entrypoint, entrypoint)
        entrypoint.chmod(0o755)
        os.chown(root / recipe.directories[0], *(2 * (USERS["postgres" if "post" in recipe.entrypoint else "redis"],)))


def _link_applets(root: Path) -> None:
    busybox = root / "usr/bin/busybox"
    applets = subprocess.run([str(busybox), "--list"], check=True, capture_output=True, text=True).stdout.split()
    for applet in applets:
        if applet != "busybox":
            (root / "usr/bin" / applet).symlink_to("busybox")


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NoEngine(f"a test image can't be made: {json.dumps(command)} failed: {done.stderr.strip()[-500:]}")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
