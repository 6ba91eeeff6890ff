"""A stack that is made to suffer: services, volumes, a local and an S3 store, and what must hold after every kill."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
import yaml

from backupd.journal import Journal
from backupd.ports import Store
from backupd.repository import Repository
from backupd.stores.local import LocalStore
from backupd.stores.s3 import S3Options, S3Store
from backupd.verify.verifier import Verifier
from backupd.wiring import SystemClock
from tests.support.cli import Cli
from tests.support.engines import helper_names
from tests.support.runtime import RecordingProgress
from tests.support.s3 import MIB, S3Server
from tests.support.stacks import Stack
from tests.support.zygote import Zygote

Makers = tuple[docker.DockerClient, Callable[..., Any], Callable[..., str], Callable[[str], Path], str]
BIG = "big"
"""A file that makes multipart uploads of more than one part."""


@dataclass
class Torture:
    """A database that uses both volumes, an application that depends on it, and what each snapshot holds."""

    zygote: Zygote
    stack: Stack
    roots: dict[str, Path]
    containers: list[Any]
    base: Path
    s3: S3Options
    stores: list[Store]
    held: dict[str, str] = field(default_factory=dict)
    number: int = 0

    def run(self, *arguments: str) -> None:
        """A command that is to succeed."""
        done = self.zygote.run(*arguments)
        assert done.returncode == 0, f"{arguments}: {done.stderr}"

    def write(self, dice: random.Random) -> None:
        """Other data, the same number in both volumes."""
        self.number += 1
        for root in self.roots.values():
            for path in root.iterdir():
                path.unlink()
            (root / "number").write_text(str(self.number))
            for index in range(20):
                (root / f"file-{self.number % 3}-{index}").write_text(f"{self.number} {index} " * 50)
        (self.roots["one"] / BIG).write_bytes(dice.randbytes(6 * MIB))

    def text(self) -> str:
        """What is in the volumes, which must be the same in both, but for the big file."""
        return _same_in_both(self.roots)

    def listed(self) -> list[str]:
        """What either store holds."""
        return sorted({found.id for store in self.stores for found in self._repository(store).snapshots()[0]})

    def learn(self, text: str) -> None:
        """Snapshots that were not there before hold this."""
        for store in self.stores:
            for manifest in self._repository(store).snapshots()[0]:
                self.held.setdefault(manifest.id, text)

    def check(self, allowed: set[str]) -> None:
        """Recover, then look at everything."""
        self.run("recover")
        for container in self.containers:
            container.reload()
            assert container.status == "running", container.name
            assert container.exec_run(["test", "-e", "/tmp/held"]).exit_code == 1, "post was not run"
        assert self.text() in allowed, "neither old nor new"
        assert Journal(self.base / "state").open_acts() == []
        deadline = time.monotonic() + 60  # what the engine was still at when the process died
        while self.left_in_the_engine() and time.monotonic() < deadline:
            self.run("recover")
        assert self.left_in_the_engine() == []
        assert self.left_in_the_state() == []
        for store in self.stores:
            self._check_store(store)

    def left_in_the_engine(self) -> list[str]:
        """Helpers, and what drills put up."""
        api = self.stack.client.api
        filters = {"label": ["backupd.drill"]}
        drills = [box["Names"][0] for box in api.containers(all=True, filters=filters)]
        drills += [net["Name"] for net in api.networks(filters=filters)]
        drills += [volume["Name"] for volume in api.volumes(filters=filters)["Volumes"] or []]
        return helper_names(self.stack.client) + drills

    def left_in_the_state(self) -> list[str]:
        """Marks of leases and uploads, locks, pipes, directories of drills."""
        left = [
            path for name in ("leases", "uploads/away", "locks", "drills") for path in self.base.glob(f"state/{name}/*")
        ]
        left += [path for path in self.base.glob("state/pipes/*") if path.name != "home"]
        return [str(path) for path in left]

    def _check_store(self, store: Store) -> None:
        """What is listed can be read whole; no leases, no unfinished objects."""
        repository = self._repository(store)
        manifests, damaged = repository.snapshots()
        assert damaged == []
        findings = Verifier(repository, RecordingProgress(), 1.0, random.Random(0)).verify(manifests)
        assert [finding for finding in findings if finding.problem] == []
        assert list(store.list("leases/")) == []
        if isinstance(store, S3Store):
            assert list(store._unfinished()) == []
        else:
            assert list(self.base.glob("backups/.unfinished/*")) == []

    def check_restores(self, dice: random.Random, most: int) -> None:
        """So many snapshots restore to what they were taken of, from either store, as the command line does it."""
        there = [(found.id, store) for store in self.stores for found in self._repository(store).snapshots()[0]]
        for snapshot, store in dice.sample(there, min(most, len(there))):
            out = self.base / "out"
            out.mkdir()
            for name in self.roots:
                where = ["--to-dir", str(out / name), "--yes", "--store", store.name]
                self.run("restore", snapshot, name, *where)
            assert _same_in_both({name: out / name for name in self.roots}) == self.held[snapshot], snapshot
            shutil.rmtree(out)

    def _repository(self, store: Store) -> Repository:
        return Repository.open(store, threads=2)


def _same_in_both(roots: dict[str, Path]) -> str:
    found = {
        name: {path.name: path.read_bytes() for path in root.iterdir() if path.name != BIG}
        for name, root in roots.items()
    }
    first, *others = found.values()
    assert all(other == first for other in others), "one volume is old, the other one new"
    big = (roots["one"] / BIG).read_bytes()
    return f"{sorted(first.items())} {hash(big)}"


@contextmanager
def torture_chamber(base: Path, host: str, makers: Makers, server: S3Server) -> Iterator[Torture]:
    """Everything of it below `base`."""
    stack = Stack(*makers)
    volumes = {name: stack.volume(name) for name in ("one", "two")}
    containers = [
        stack.container("db", volumes=[f"{volumes['one']}:/one", f"{volumes['two']}:/two"]),
        stack.container("app", volumes=[f"{volumes['one']}:/one"], depends_on=["db"]),
    ]
    options = server.options()
    away = {name: getattr(options, name) for name in ("bucket", "prefix", "endpoint_url", "access_key_id")}
    around = {
        "pre": [{"service": "db", "command": ["touch", "/tmp/held"]}],
        "post": [{"service": "db", "command": ["rm", "-f", "/tmp/held"]}],
    }
    config = {
        "project": stack.project,
        "state_dir": str(base / "state"),
        "docker": {"host": host, "helper_image": stack.image},
        "stores": {
            "local": {"type": "local", "path": str(base / "backups")},
            "away": {"type": "s3", "part_size": "5MiB", **away, "secret_access_key": options.secret_access_key},
        },
        "volumes": {
            "one": {"volume": "one", "consistency": "stop", "drill": {"steady_for": "1s"}},
            "two": {"volume": "two", "consistency": "pause", "drill": {"steady_for": "1s"}},
        },
        "prune": {"grace": "1s", "keep_safety": "1s"},
        "plans": {
            "p": {
                "volumes": ["one", "two"],
                "stores": ["local", "away"],
                "together": True,
                "keep": {"last": 3},
                **around,
            }
        },
    }
    path = base / "backupd.yaml"
    path.write_text(yaml.safe_dump(config))
    roots = {name: stack.root(volume) for name, volume in volumes.items()}
    stores: list[Store] = [LocalStore("local", base / "backups"), S3Store("away", options, SystemClock())]
    with Zygote(Cli(path)) as zygote:
        yield Torture(zygote, stack, roots, containers, base, options, stores)
    for store in stores:
        store.close()
