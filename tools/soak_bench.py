"""What a soak's functions work with, and what they say of each round."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.support.cli import Cli
from tests.support.images import Images

LABELS = {"backupd.soak": uuid.uuid4().hex}


@dataclass(frozen=True)
class Round:
    """`trouble` says what was wrong with the restored service, empty: nothing. `lost` are commits from before."""

    trouble: str
    lost: int
    gap_seconds: float
    backup_seconds: float


@dataclass
class Bench:
    """What a service's function works with; everything that it makes is removed."""

    client: Any
    images: Images
    url: str
    scratch: Path
    scale: int

    def volume(self) -> str:
        return str(self.client.volumes.create(f"backupd-soak-{uuid.uuid4().hex[:12]}", labels=LABELS).name)

    @contextmanager
    def container(self, image: str, command: list[str], **rest: Any) -> Iterator[Any]:
        started = self.client.containers.run(self.images.tag(image), command, detach=True, labels=LABELS, **rest)
        try:
            yield started
        finally:
            started.remove(force=True, v=True)

    def cli(self, volume: str, consistency: str) -> Cli:
        """A command line that backs the volume up."""
        place = Path(tempfile.mkdtemp(dir=self.scratch))
        config = {
            "state_dir": str(place / "state"),
            "docker": {"host": self.url, "helper_image": self.images.tag("helper")},
            "stores": {"local": {"type": "local", "path": str(place / "backups")}},
            "volumes": {"data": {"volume": volume} | ({} if consistency == "found" else {"consistency": consistency})},
        }
        (place / "backupd.yaml").write_text(yaml.safe_dump(config))
        return Cli(place / "backupd.yaml")

    def remove_volume(self, name: str) -> None:
        self.client.volumes.get(name).remove(force=True)
