"""The image for another architecture: built by the Dockerfile that ships, then used, both under emulation.

    make emulated                   # arm64
    make emulated ARGS=--keep       # … whose engine stays for you to look at, until Enter

On Debian as root: QEMU, a private Docker Engine and the base image come from Debian's packages. Emulated programs are
some twenty times slower, so it takes a while. Left behind are Debian's packages, QEMU's entries in the kernel, and the
base image under `.build/`.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import docker
from docker.errors import ContainerError

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.support.apt import NotInstallable
from tests.support.dockerd import Host, NoEngine, private_host
from tests.support.emulation import MACHINES, emulate
from tests.support.sidecar_image import NotBuilt, SidecarImage
from tools import sample_volumes
from tools.fingerprint import differences, fingerprint

HARDENED: dict[str, Any] = {
    "read_only": True,
    "tmpfs": {"/tmp": "mode=1777"},
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
    "network_mode": "none",
}
AS_ROOT = ["CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "MKNOD", "SETFCAP"]


class Trial:
    """One engine: `backupd` runs the command line in a container like the one that the overlay makes."""

    def __init__(self, client: docker.DockerClient, host: Host, image: str, work: Path, engine: str) -> None:
        self._client = client
        self._image = image
        self._volumes = work / "volumes"
        self._options = dict(HARDENED)
        mounts = [f"{work}/config:/etc/backupd:ro", f"{engine}-state:/var/lib/backupd", f"{engine}-archives:/backups"]
        if engine == "docker":
            socket = host.url.removeprefix("unix://")
            self._options["group_add"] = [Path(socket).stat().st_gid]
            mounts.append(f"{socket}:/var/run/docker.sock")
        else:
            self._options |= {"user": "0:0", "cap_add": AS_ROOT}
            mounts.append(f"{self._volumes}:{self._volumes}")
        self._options |= {"volumes": mounts, "environment": {"BACKUPD_ENGINE": engine}}

    def run(self) -> list[str]:
        """A snapshot, all its data read, damage, a restore; what is not as it was."""
        before = {name: fingerprint(self._volumes / name) for name in sample_volumes.VOLUMES}
        for command in ("doctor", "backup", "list", "--identity /etc/backupd/key verify --read-data"):
            self.backupd(command)
        sample_volumes.damage(self._volumes)
        self.backupd("--identity /etc/backupd/key restore latest --yes --no-safety-snapshot")
        return [
            f"{name}: {line}"
            for name in before
            for line in differences(before[name], fingerprint(self._volumes / name))
        ]

    def backupd(self, line: str) -> str:
        """What it prints, which is shown as well."""
        started = time.monotonic()
        said = self.container(None, *line.split())
        print(f"$ backupd {line}    ({time.monotonic() - started:.0f} s)\n{said}", flush=True)
        return said

    def container(self, entrypoint: str | None, *arguments: str) -> str:
        """What another program of the image says on both its outputs; ContainerError if it fails."""
        output = self._client.containers.run(
            self._image, list(arguments), entrypoint=entrypoint, remove=True, stdout=True, stderr=True, **self._options
        )
        return str(output.decode())


def try_out(client: docker.DockerClient, host: Host, image: str, work: Path) -> list[str]:
    """All of it, by both engines; what went wrong."""
    sample_volumes.create(work / "volumes")
    config = work / "config"
    config.mkdir()
    mounted = Trial(client, host, image, work, "mounted")
    print(mounted.container("uname", "-m").strip(), mounted.backupd("--version"), flush=True)
    secret = mounted.container("backupd", "keygen")
    (config / "key").write_text(secret)
    (config / "key").chmod(0o444)
    recipient = next(word for word in secret.split() if word.startswith("age1"))
    volumes = "".join(f"  {name}: {{path: {work / 'volumes' / name}}}\n" for name in sample_volumes.VOLUMES)
    stores = "stores: {local: {type: local, path: /backups}}\nstate_dir: /var/lib/backupd\n"
    (config / "backupd.yaml").write_text(f"{stores}encryption: {{recipients: [{recipient}]}}\nvolumes:\n{volumes}")
    wrong = mounted.run()
    return wrong + Trial(client, host, image, work, "docker").run()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "architecture", nargs="?", default="arm64", choices=MACHINES, help="Debian's name of it (default: arm64)"
    )
    parser.add_argument("--keep", action="store_true", help="wait for Enter before the engine goes")
    arguments = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="backupd-emulated-"))
    work.chmod(0o755)
    try:
        emulate(arguments.architecture)
        with private_host() as host, contextlib.closing(docker.DockerClient(host.url, timeout=3600)) as client:
            with contextlib.closing(SidecarImage(host)) as sidecar:
                started = time.monotonic()
                image = sidecar.emulated(arguments.architecture)
            facts = client.images.get(image).attrs
            took = (time.monotonic() - started) / 60
            print(
                f"{facts['Os']}/{facts['Architecture']}: {facts['Size'] / 1e6:.0f} MB, built in {took:.0f} min",
                flush=True,
            )
            wrong = try_out(client, host, image, work)
            if arguments.keep:
                input(f"DOCKER_HOST={host.url}  image {image}")
    except (NoEngine, NotBuilt, NotInstallable, ContainerError) as exc:
        print(f"FAILED: {exc}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print("\n".join(wrong) or "Everything came back as it was, by both engines.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
