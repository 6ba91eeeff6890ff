"""Debian's slim image, made from Debian's packages: what the shipped Dockerfile is built upon without a registry."""

from __future__ import annotations

import hashlib
import io
import json
import os
import ssl
import subprocess
import tarfile
from pathlib import Path

import docker
from docker.errors import ImageNotFound

from tests.support.apt import NotInstallable, install
from tests.support.dockerd import NoEngine

SUITE = "trixie"
MIRROR = "http://deb.debian.org/debian"
TAG = f"backupd-test/debian:{SUITE}-slim"

# What Debian's own slim images leave out.
LEFT_OUT = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/info/*", "/usr/share/lintian/*")

AUTHORITIES = "/etc/ssl/authorities.pem"
# Whom this machine trusts, the image trusts, too: a proxy before PyPI may have an authority of its own. It is what
# BASE_IMAGE is there for.
DOCKERFILE = f"""
FROM {{tag}}-plain
COPY authorities.pem {AUTHORITIES}
ENV PIP_CERT={AUTHORITIES} SSL_CERT_FILE={AUTHORITIES}
"""


def debian_image(client: docker.DockerClient, cache: Path, architecture: str | None = None) -> str:
    """The tag of the image, which is made if the engine does not have it. The caller holds the lock of the cache.

    `architecture`: Debian's name of another one than this machine's, which the kernel has to run (qemu-user-static).
    """
    tag = f"{TAG}-{architecture}" if architecture else TAG
    try:
        client.images.get(tag)
    except ImageNotFound:
        root = _root(cache, architecture)
        if architecture:
            client.images.load(_loadable(root, f"{tag}-plain", architecture))
        else:
            repository, _, name = tag.partition(":")
            client.api.import_image_from_file(str(root), repository=repository, tag=f"{name}-plain")
        context = in_memory({"Dockerfile": DOCKERFILE.format(tag=tag).encode(), "authorities.pem": _authorities()})
        platform = f"linux/{architecture}" if architecture else None
        client.images.build(fileobj=context, custom_context=True, tag=tag, rm=True, platform=platform)
    return tag


def _loadable(root: Path, tag: str, architecture: str) -> io.BytesIO:
    """An image as `docker load` takes it: what is imported is of their own architecture to older engines."""
    layer = root.read_bytes()
    config = {
        "architecture": architecture,
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [tag], "Layers": ["layer.tar"]}]
    described = {"config.json": config, "manifest.json": manifest}
    return in_memory({"layer.tar": layer, **{name: json.dumps(value).encode() for name, value in described.items()}})


def in_memory(files: dict[str, bytes]) -> io.BytesIO:
    """A tar of these files."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    target.seek(0)
    return target


def _authorities() -> bytes:
    found = ssl.get_default_verify_paths()
    bundle = os.environ.get("SSL_CERT_FILE") or found.cafile or found.openssl_cafile
    return Path(bundle).read_bytes()


def _root(cache: Path, architecture: str | None) -> Path:
    wanted = cache / f"debian-{SUITE}{f'-{architecture}' if architecture else ''}.tar"
    if not wanted.exists():
        try:
            install("mmdebstrap")
        except NotInstallable as exc:
            raise NoEngine(f"the Debian image can't be made: {exc}") from exc
        partial = wanted.with_suffix(".partial.tar")
        excludes = [f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT]
        options = ["--mode=root", "--variant=minbase", *excludes]
        if architecture:
            options.append(f"--architectures={architecture}")
        command = ["mmdebstrap", *options, SUITE, str(partial), MIRROR]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise NoEngine(f"the Debian image can't be made: {done.stderr.strip()[-500:]}")
        partial.rename(wanted)
    return wanted
