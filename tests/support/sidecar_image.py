"""The image that ships, built by the very Dockerfile that ships, with the builder of any engine (no BuildKit).

Two tars under `.build/` make that quick: the stages without backupd's own source, the builder's cache,
and the finished image. Their names say what they were made from.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker
import requests
from docker.errors import BuildError, ImageNotFound
from docker.utils import build as contexts

from tests.support import debian
from tests.support.dockerd import Host
from tests.support.images import CACHE

ROOT = Path(__file__).resolve().parents[2]
STAGES = ("base", "dependencies")
DOCKERFILE = ROOT / "Dockerfile"
LOCKED = [ROOT / "requirements" / name for name in ("build.txt", "runtime.txt")]


class NotBuilt(AssertionError):  # noqa: N818  (as NotInstallable)
    """The Dockerfile does not make an image; the end of what the builder said."""


class SidecarImage:
    """The image in one engine."""

    def __init__(self, host: Host) -> None:
        self._client = docker.DockerClient(base_url=host.url, version="auto", timeout=3600)

    def tag(self) -> str:
        """The tag of the finished image."""
        CACHE.mkdir(parents=True, exist_ok=True)
        tag = f"backupd-test/backupd:{_digest(_sources())}"
        try:
            self._client.images.get(tag)
        except ImageNotFound:
            with _locked():
                self._load_or(f"sidecar-{tag.partition(':')[2]}.tar", [tag], lambda: self._build(tag))
        return tag

    def emulated(self, architecture: str) -> str:
        """The tag of the image for another architecture, built under emulation; only its base is kept."""
        CACHE.mkdir(parents=True, exist_ok=True)
        with _locked():
            base = debian.debian_image(self._client, CACHE, architecture)
        tag = f"backupd-test/backupd:{architecture}"
        self._run(base, tag=tag, platform=f"linux/{architecture}")
        return tag

    def close(self) -> None:
        self._client.close()

    def _build(self, tag: str) -> None:
        base = debian.debian_image(self._client, CACHE)
        digest = _digest([DOCKERFILE, *LOCKED, Path(debian.__file__)])
        stages = [f"backupd-test/{stage}:{digest}" for stage in STAGES]

        def build_stages() -> None:
            for stage, name in zip(STAGES, stages, strict=True):
                self._run(base, tag=name, target=stage)

        self._load_or(f"sidecar-stages-{digest}.tar", stages, build_stages)
        self._run(base, tag=tag, cache_from=stages)

    def _run(self, base: str, **options: Any) -> None:
        try:
            with _context() as context:
                self._client.images.build(
                    fileobj=context, custom_context=True, buildargs={"BASE_IMAGE": base}, rm=True, **options
                )
        except BuildError as exc:
            said = "".join(str(line.get("stream") or line.get("error") or "") for line in exc.build_log)
            raise NotBuilt(f"the image can't be built:\n{said[-3000:]}") from exc

    def _load_or(self, name: str, tags: list[str], build: Callable[[], None]) -> None:
        """Images from their tar, else made, and kept in it."""
        wanted = CACHE / name
        if wanted.exists():
            with wanted.open("rb") as file:
                self._client.images.load(file)
            return
        build()
        kind = name.rpartition("-")[0]
        for old in CACHE.glob(f"{kind}-????????????.tar"):
            old.unlink()
        partial = wanted.with_suffix(".partial")
        with partial.open("wb") as file:
            for chunk in self._client.api.get_image(tags[0]) if len(tags) == 1 else self._many(tags):
                file.write(chunk)
        partial.rename(wanted)

    def _many(self, tags: list[str]) -> Iterable[bytes]:
        """The SDK saves one image at a time; the API takes several."""
        api: Any = self._client.api
        answer: requests.Response = api._get(api._url("/images/get"), params={"names": tags}, stream=True)
        answer.raise_for_status()
        return answer.iter_content(1 << 20)


def _context() -> Any:
    """What the client would send: the directory without what .dockerignore names."""
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    patterns = [line.strip() for line in ignored if line.strip() and not line.startswith("#")]
    files = contexts.exclude_paths(str(ROOT), patterns, dockerfile="Dockerfile")
    return contexts.create_archive(str(ROOT), files=sorted(files))


def _sources() -> list[Path]:
    tracked = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "backupd"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.split()
    package = [ROOT / name for name in tracked] or sorted((ROOT / "backupd").rglob("*.*"))
    others = [DOCKERFILE, ROOT / ".dockerignore", ROOT / "pyproject.toml", Path(debian.__file__)]
    return sorted({*package, *others, *LOCKED})


def _digest(paths: Iterable[Path]) -> str:
    found = hashlib.sha256()
    for path in paths:
        if path.exists():
            found.update(os.fsencode(path.relative_to(ROOT)) + b"\0" + path.read_bytes())
    return found.hexdigest()[:12]


@contextmanager
def _locked() -> Iterator[None]:
    with (CACHE / "sidecar.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
