"""The demo: four sample volumes, snapshot, small change, snapshot, damage, restore, proof. Cleans up after itself."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import docker
from docker.errors import DockerException

from backupd.engine import MountedEngine
from backupd.model import Volume, VolumeSpec
from backupd.ports import Engine
from backupd.settings import load_settings
from backupd.wiring import make_engine
from tools import sample_volumes
from tools.fingerprint import differences, fingerprint

ROOT = Path(__file__).resolve().parent.parent
BOLD, GREEN, RED, PLAIN = ("\033[1m", "\033[32m", "\033[31m", "\033[0m") if sys.stdout.isatty() else ("",) * 4


class DemoError(Exception):
    """The demo did not go as it should."""


def say(text: str) -> None:
    print(f"\n{BOLD}{text}{PLAIN}", flush=True)


class Demo:
    """One run in a directory of its own. `volumes` is where this process sees the volumes' files."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.volumes = work / "volumes"
        self.config = work / "backupd.yaml"

    def prepare(self) -> None:
        """Make the volumes and the configuration."""
        sample_volumes.create(self.volumes)
        self.write_config(
            "engine: mounted", {name: f"{{path: {self.volumes / name}}}" for name in sample_volumes.VOLUMES}
        )

    def write_config(self, engine: str, volumes: dict[str, str]) -> None:
        """The configuration that all commands of the demo use."""
        lines = [
            engine,
            f"state_dir: {self.work / 'state'}",
            "stores:",
            f"  local: {{type: local, path: {self.work / 'backups'}}}",
        ]
        lines += ["volumes:", *(f"  {name}: {volume}" for name, volume in volumes.items())]
        self.config.write_text("\n".join(lines) + "\n")

    def backupd(self, *arguments: str, quiet: bool = False) -> str:
        """Run the command line as a user would; its output is shown unless `quiet`."""
        if not quiet:
            print(f"{GREEN}$ backupd {' '.join(arguments)}{PLAIN}", flush=True)
        result = subprocess.run(
            [sys.executable, "-m", "backupd", *arguments],
            env={key: value for key, value in os.environ.items() if not key.startswith("BACKUPD_")}
            | {"BACKUPD_CONFIG": str(self.config)},
            cwd=ROOT,
            stdout=subprocess.PIPE if quiet else None,
            text=True,
            check=False,
        )
        if result.returncode:
            raise DemoError(f"backupd {' '.join(arguments)} ended with {result.returncode}")
        return result.stdout or ""

    def see(self) -> Path:
        """Where the volumes' files can be read and changed at this moment."""
        return self.volumes

    def push(self) -> None:
        """What was changed there is to be in the volumes."""

    def clean(self) -> None:
        """Leave nothing behind."""
        shutil.rmtree(self.work, ignore_errors=True)


class DockerDemo(Demo):
    """The same on named volumes of a Docker Engine; what is seen is a copy of their content."""

    def __init__(self, work: Path, image: str) -> None:
        super().__init__(work)
        self.image = image
        self.client = docker.from_env()
        self.project = f"backupd-demo-{uuid.uuid4().hex[:8]}"

    def prepare(self) -> None:
        """Make named volumes with Compose's labels, and fill them."""
        sample_volumes.create(self.volumes)
        for name in sample_volumes.VOLUMES:
            labels = {"com.docker.compose.project": self.project, "com.docker.compose.volume": name}
            self.client.volumes.create(f"{self.project}_{name}", labels=labels)
        self.write_config(
            f"engine: docker\nproject: {self.project}\ndocker: {{helper_image: '{self.image}'}}",
            {name: f"{{volume: {name}}}" for name in sample_volumes.VOLUMES},
        )
        self.push()

    def see(self) -> Path:
        """Copy the volumes' content out, with tar alone."""
        shutil.rmtree(self.volumes)
        for name in sample_volumes.VOLUMES:
            (self.volumes / name).mkdir(parents=True)
        self._copy(outward=True)
        return self.volumes

    def push(self) -> None:
        """Copy it in, with tar alone."""
        self._copy(outward=False)

    def _copy(self, *, outward: bool) -> None:
        engine, mounted = make_engine(load_settings(self.config, {})), MountedEngine()
        for name in sample_volumes.VOLUMES:
            inside = engine, engine.find(VolumeSpec(name, volume=name))
            outside = mounted, mounted.find(VolumeSpec(name, path=str(self.volumes / name)))
            copy(*inside, *outside) if outward else copy(*outside, *inside)
        engine.close()

    def clean(self) -> None:
        """Leave nothing behind."""
        for volume in self.client.volumes.list(filters={"label": f"com.docker.compose.project={self.project}"}):
            volume.remove(force=True)
        self.client.close()
        super().clean()


def copy(source_engine: Engine, source: Volume, target_engine: Engine, target: Volume) -> None:
    """All of one volume into another, which is emptied first."""
    target_engine.run_script(target, "find . -mindepth 1 -delete")
    buffer = memoryview(bytearray(1024 * 1024))
    with source_engine.tar_out(source) as output, target_engine.tar_in(target) as sink:
        while count := output.readinto(buffer):
            sink.write(buffer[:count])
        output.finish()
        sink.finish()


def run(demo: Demo) -> None:
    """The story, and its proof."""
    say("1. Four sample volumes: a SQLite database, 2,000 small files, three large ones, and oddities")
    demo.prepare()
    original = {name: fingerprint(demo.see() / name) for name in sample_volumes.VOLUMES}
    print(f"{sum(map(len, original.values())):,} entries")

    say("2. A snapshot")
    demo.backupd("backup")
    first = newest(demo)

    say("3. A small change, and a second snapshot: only what is new is stored")
    sample_volumes.change(demo.see())
    demo.push()
    demo.backupd("backup")
    demo.backupd("list")
    demo.backupd("diff", first, "latest", "documents")

    say("4. Disaster: the database zeroed, documents deleted, a stranger's note")
    sample_volumes.damage(demo.see())
    demo.push()

    say("5. One command brings it back")
    started = time.monotonic()
    demo.backupd("restore", first, "--yes")
    print(f"({time.monotonic() - started:.1f} s, safety snapshot of the damage included)")

    say("6. Proof: every byte, owner, mode, time and link")
    restored = demo.see()
    wrong = []
    for name in sample_volumes.VOLUMES:
        lines = differences(original[name], fingerprint(restored / name))
        wrong += [f"{name}: {line}" for line in lines]
        print(f"  {name:<10} {len(original[name]):>6,} entries  {'DIFFERENT' if lines else 'identical'}")
    if wrong:
        raise DemoError("not everything came back:\n  " + "\n  ".join(wrong[:20]))
    demo.backupd("verify", "--read-data")


def newest(demo: Demo) -> str:
    """The id of the newest snapshot."""
    return str(json.loads(demo.backupd("list", "--json", quiet=True))["snapshots"][0]["id"][:8])


def engine_answers() -> bool:
    """Whether a Docker Engine answers here."""
    try:
        client = docker.from_env(timeout=5)
        client.ping()
        client.close()
    except (DockerException, OSError):
        return False
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", choices=("auto", "mounted", "docker"), default="auto")
    engine = parser.parse_args().engine
    image = os.environ.get("BACKUPD_IMAGE_HELPER")
    if engine == "auto":
        engine = "docker" if engine_answers() else "mounted"
        if engine == "docker" and shutil.which("apt-get") is None:
            print("A Docker Engine answers, but the demo's image is made of Debian's packages: using directories.")
            engine = "mounted"
    if engine == "docker" and not image:
        # An engine (a private one if none answers) and an image with GNU tar, then this script again.
        prefix = [sys.executable, str(ROOT / "tools" / "with_engine.py"), "--images", "helper", "--"]
        return subprocess.run(
            [*prefix, sys.executable, "-m", "tools.demo", "--engine", "docker"], cwd=ROOT, check=False
        ).returncode
    print(f"{BOLD}backupd demo{PLAIN} on {'named volumes of a Docker Engine' if engine == 'docker' else 'directories'}")
    work = Path(tempfile.mkdtemp(prefix="backupd-demo-"))
    demo = DockerDemo(work, str(image)) if engine == "docker" else Demo(work)
    try:
        run(demo)
    except DemoError as exc:
        print(f"\n{RED}FAILED:{PLAIN} {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        demo.clean()
    say("That is all, and everything was cleaned up. Where to go next:")
    print("  README.md                 your own stack in five minutes")
    print("  config/backupd.yaml       a configuration to start from")
    print("  docs/CONFIGURATION.md     every setting")
    print("  docs/FORMAT.md            what is in a store, and how to get it back without backupd")
    return 0


if __name__ == "__main__":
    sys.exit(main())
