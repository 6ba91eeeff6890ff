"""Who is measured, as shell commands: $SOURCE is the volume, $REPO where a backup goes, $OUT where it comes back to."""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BACKUPD = "backupd"
BACKUPD_DOCKER = "backupd-docker"
OUT_VOLUME = "backupd-bench-out"
KEPT = 65536  # bytes
PACKAGES = {"restic": "restic", "borg": "borgbackup", "zstd": "zstd"}

_LOCAL = """\
engine: mounted
state_dir: {home}/state
stores: {{local: {{type: local, path: {repo}}}}}
volumes: {{data: {{path: {source}}}}}
"""
_DOCKER = """\
engine: docker
docker: {{host: "{docker_host}", helper_image: "{helper}"}}
state_dir: {home}/state
stores: {{local: {{type: local, path: {repo}}}}}
volumes: {{data: {{volume: {volume}}}}}
"""


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to back up. `again` is None for what makes no sense a second time; `config` is a backupd.yaml.

    `whole` says that time and memory of its processes tell all, since none of them runs elsewhere.
    """

    name: str
    label: str
    first: str
    again: str | None = None
    restore: str | None = None
    prepare: str | None = None
    config: str | None = None
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Docker:
    """An engine, the volume in it that is $SOURCE, and images."""

    host: str
    alpine: str
    helper: str
    volume: str


def contenders(docker: Docker | None) -> list[Contender]:
    """Those that can run here. backupd is the first."""
    backup, restore = "$PYTHON -m backupd backup", "$PYTHON -m backupd restore latest data --yes"
    out = [
        Contender(BACKUPD, "backupd", backup, backup, f'{restore} --to-dir "$OUT"', config=_LOCAL),
        *_tar(docker),
    ]
    if docker:
        out.append(
            Contender(
                BACKUPD_DOCKER,
                "backupd, Docker engine",
                backup,
                backup,
                f"{restore} --into $OUT_VOLUME",
                config=_DOCKER,
            )
        )
    if shutil.which("restic"):
        command = 'cd "$SOURCE" && restic backup .'
        out.append(
            Contender(
                "restic",
                f"{_said('restic', 'version').split(' compiled')[0]} (always encrypts)",
                command,
                command,
                'restic restore latest --target "$OUT"',
                prepare="restic init",
            )
        )
    if shutil.which("borg"):
        command = 'cd "$SOURCE" && borg create --compression zstd,3 "$REPO::{now:%H%M%S%f}" .'
        out.append(
            Contender(
                "borg",
                f"{_said('borg', '--version')} (zstd,3, not encrypted)",
                command,
                command,
                'cd "$OUT" && borg extract "$REPO::$(borg list --last 1 --format "{archive}" "$REPO")"',
                prepare='borg init --encryption none "$REPO"',
            )
        )
    return out


def _tar(docker: Docker | None) -> list[Contender]:
    zstd = 'tar -C "$SOURCE" -cf - . | zstd -q -3 -T0 -o "$REPO/data.tar.zst"'
    unzstd = 'zstd -q -dc "$REPO/data.tar.zst" | tar -C "$OUT" -xf -'
    if docker:
        run = 'docker run --rm -v "$VOLUME":/data -v "$REPO":/backup "$ALPINE" tar czf /backup/data.tar.gz -C /data .'
        guide = Contender("guide", "the guide's docker run … tar czf (alpine's BusyBox)", run, whole=False)
    else:
        run = 'tar -C "$SOURCE" -czf "$REPO/data.tar.gz" .'
        guide = Contender("guide", "stand-in for the guide's docker run: GNU tar czf", run)
    return [
        Contender("zstd", "tar | zstd -3 -T0", zstd, restore=unzstd),
        Contender(
            "zstd-synced",
            "tar | zstd -3 -T0, then sync -f",
            f'{zstd} && sync -f "$REPO/data.tar.zst"',
            restore=f'{unzstd} && sync -f "$OUT"',
        ),
        Contender("tar", "tar | cat > /dev/null", *2 * ('tar -C "$SOURCE" -cf - . | cat > /dev/null',)),
        guide,
    ]


class Place:
    """The directories of one contender, and the environment that its commands run in."""

    def __init__(
        self,
        contender: Contender,
        work: Path,
        source: Path,
        docker: Docker | None = None,
        words: Mapping[str, str] | None = None,
    ) -> None:
        self.contender = contender
        self.source = source
        self._work = work / contender.name
        self.repo, self.out, self._home = (self._work / name for name in ("repo", "out-0", "home"))
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith("BACKUPD_")} | {
            "SOURCE": str(source),
            "REPO": str(self.repo),
            "OUT": str(self.out),
            "HOME": str(self._home),
            "PYTHON": sys.executable,
            "RESTIC_REPOSITORY": str(self.repo),
            "RESTIC_PASSWORD": "benchmark",
            "RESTIC_CACHE_DIR": str(self._home),
            "BORG_BASE_DIR": str(self._home),
            "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
            "BACKUPD_CONFIG": str(self._work / "backupd.yaml"),
        }
        self._words = {"home": self._home, "repo": self.repo, "source": source, **(words or {})}
        if docker:
            self.environment |= {"DOCKER_HOST": docker.host, "VOLUME": docker.volume, "ALPINE": docker.alpine}
            self._words |= {"docker_host": docker.host, "volume": docker.volume, "helper": docker.helper}

    def fresh(self) -> None:
        """An empty repository, a new configuration and whatever else has to be there before the first backup."""
        self.remove()
        for directory in (self.repo, self._home):
            directory.mkdir(parents=True)
        if self.contender.config:
            text = self.contender.config.format(**self._words)
            (self._work / "backupd.yaml").write_text(text)
        self._quietly(self.contender.prepare)

    def new_out(self) -> None:
        """An empty directory to restore to, and the name of a volume that is not there yet.

        What was restored before is not removed but emptied: where ext4 has no journal, creating files is several times
        slower for minutes after as many were deleted.
        """
        for path in self.out.rglob("*"):
            if path.is_file() and not path.is_symlink() and path.stat().st_size > KEPT:
                os.truncate(path, 0)
        token = secrets.token_hex(4)
        self.out = self._work / f"out-{token}"
        self.out.mkdir()
        self.environment |= {"OUT": str(self.out), "OUT_VOLUME": f"{OUT_VOLUME}-{token}"}

    def warm(self, directory: Path) -> None:
        """Bring it into the page cache."""
        self._quietly(f"tar -C {shlex.quote(str(directory))} -cf - . | cat > /dev/null")

    def remove(self) -> None:
        """Remove the repository. What was restored stays until everything is removed."""
        for directory in (self.repo, self._home):
            shutil.rmtree(directory, ignore_errors=True)

    def _quietly(self, command: str | None) -> None:
        if command:
            subprocess.run(["bash", "-c", command], env=self.environment, check=True, capture_output=True)


def install_missing() -> list[str]:
    """Install the peers on Debian if this is root there; returns what is still missing."""
    missing = [package for program, package in PACKAGES.items() if not shutil.which(program)]
    if missing and os.geteuid() == 0 and shutil.which("apt-get"):
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing]
        subprocess.run(command, env=environment, check=False, capture_output=True)
    return [package for program, package in PACKAGES.items() if not shutil.which(program)]


def _said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
