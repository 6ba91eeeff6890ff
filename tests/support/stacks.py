"""A Compose project as it is to the engine: containers and volumes with Compose's labels, and programs that write."""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker

FOREVER = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.02; done"]

# A line with the time every few milliseconds, into a file of the volume. Gaps between them are how long it stood.
WRITER = ["sh", "-c", "trap 'exit 0' TERM; while :; do date +%s.%N >>/srv/log; sleep 0.01; done"]

# The same number into two volumes, one after the other: at any one moment they differ by one at most.
LOCK_STEP = [
    *("sh", "-c"),
    "trap 'exit 0' TERM; n=0; while :; do n=$((n + 1)); echo $n >>/one/n; echo $n >>/two/n; done",
]


@dataclass
class Stack:
    """`container` and `volume` make things of the project; fixtures remove them."""

    client: docker.DockerClient
    run_container: Callable[..., Any]
    make_volume: Callable[..., str]
    root: Callable[[str], Path]
    image: str
    project: str = field(default_factory=lambda: f"shop{uuid.uuid4().hex[:8]}")

    def volume(self, name: str, labels: Mapping[str, str] | None = None) -> str:
        compose = {"com.docker.compose.project": self.project, "com.docker.compose.volume": name}
        return self.make_volume(f"{self.project}_{name}", labels={**compose, **(labels or {})})

    def container(self, name: str, command: list[str] | None = None, **rest: Any) -> Any:
        """A running container of the service `name`; `depends_on` names services, `volumes` are as for the SDK."""
        depends = ",".join(f"{other}:service_started:false" for other in rest.pop("depends_on", ()))
        labels = {"com.docker.compose.project": self.project, "com.docker.compose.service": name}
        labels["com.docker.compose.depends_on"] = depends
        labels |= rest.pop("labels", {})
        return self.run_container(
            self.image, command or FOREVER, name=f"{self.project}-{name}-1", labels=labels, init=True, **rest
        )

    def state(self, container: Any) -> str:
        container.reload()
        return str(container.status)

    def states(self, *containers: Any) -> set[str]:
        return {self.state(container) for container in containers}


def longest_gap(log: Path) -> float:
    """The longest time in seconds between two lines of a WRITER's log."""
    times = [float(line) for line in log.read_text().splitlines() if line]
    return max(later - earlier for earlier, later in itertools.pairwise(times))


def wait_until(true: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come to that in time"
        time.sleep(0.02)
