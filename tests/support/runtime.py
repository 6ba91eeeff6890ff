"""Collaborators of an operation for tests: progress that remembers, a clock that is set, ids that count."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from backupd.backup import BackupResult, back_up
from backupd.consistency import Consistency
from backupd.engine import MountedEngine
from backupd.model import Compression, FullEvery, Plan, VolumeSpec
from backupd.ports import Engine, Store
from backupd.recovery import GUIDE, SCRIPT
from backupd.repository import Manifest, Repository
from backupd.restore.operation import RestoreResult, restore
from backupd.restore.target import RestoreRequest, plan_restore
from backupd.runtime import Runtime
from backupd.stores.memory import MemoryStore
from tools.fingerprint import Facts, fingerprint

BEGIN = datetime(2026, 11, 1, 2, 0, tzinfo=UTC)


@dataclass
class RecordingProgress:
    """Keeps what it was told."""

    notes: list[str] = field(default_factory=list)
    stretches: list[tuple[str, int | None]] = field(default_factory=list)
    advanced: int = 0
    open: int = 0

    def begin(self, label: str, total: int | None = None) -> None:
        self.stretches.append((label, total))
        self.open += 1

    def advance(self, count: int) -> None:
        self.advanced += count

    def end(self) -> None:
        self.open -= 1

    def note(self, text: str) -> None:
        self.notes.append(text)


@dataclass
class TickingClock:
    """A second later at every look."""

    time: datetime = BEGIN

    def now(self) -> datetime:
        self.time += timedelta(seconds=1)
        return self.time


@dataclass
class CountingIds:
    """`00000001aaaaaaaa`, `00000002…`: the first digits count, so that prefixes are unambiguous."""

    prefix: int = 0
    count: int = 0

    def __call__(self) -> str:
        self.count += 1
        return f"{self.prefix + self.count:08x}{self.count * 2654435761 % 2**32:08x}"


def make_runtime(state: Path, engine: Engine | None = None, clock: TickingClock | None = None) -> Runtime:
    return Runtime(
        engine=engine or MountedEngine(),
        progress=RecordingProgress(),
        clock=clock or TickingClock(),
        new_id=CountingIds(),
        threads=2,
        host="testhost",
        program="backupd test",
        state=state,
        strategies=Consistency(),
    )


def fill(root: Path, seed: int = 1) -> Path:
    """A small volume with what restores get wrong: links, holes, modes, times, odd names, an attribute."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "sub" / "deep").mkdir(parents=True)
    (root / "sub" / "file").write_bytes(os.urandom(3000))
    (root / "text").write_text(f"volume {seed}\n" * 2000)
    (root / "sub" / "deep" / "x").write_text(f"x {seed}")
    os.link(root / "sub" / "deep" / "x", root / "sub" / "hard")
    (root / "link").symlink_to("sub/file")
    (root / "outside").symlink_to("/etc/hostname")
    (root / "empty").touch()
    (root / "empty directory").mkdir(mode=0o711)
    Path(root, os.fsdecode(b"odd \xff\n-name")).write_text("odd")
    with (root / "sparse").open("wb") as file:
        file.seek(3 << 20)
        file.write(b"end")
        file.truncate(8 << 20)
    (root / "sub" / "file").chmod(0o640)
    (root / "sub").chmod(0o2750)
    os.setxattr(root, "user.volume", str(seed).encode())
    os.utime(root / "sub", ns=(10**18 + seed, 10**18 + 123_456_789 + seed))
    root.chmod(0o751)
    os.utime(root, ns=(10**18, 10**18 + 987_654_321 + seed))
    return root


@dataclass
class Place:
    """Volumes, stores and a runtime below one directory."""

    base: Path
    stores: list[Store] = field(default_factory=lambda: [MemoryStore("local")])
    names: tuple[str, ...] = ("data",)
    optional: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    consistency: str = "auto"
    together: bool = False
    compression: Compression = field(default_factory=Compression)
    full_every: FullEvery = field(default_factory=FullEvery)

    def __post_init__(self) -> None:
        self.clock = TickingClock()
        self.runtime = make_runtime(self.base / "state", clock=self.clock)

    @property
    def notes(self) -> list[str]:
        assert isinstance(self.runtime.progress, RecordingProgress)
        return self.runtime.progress.notes

    def root(self, name: str = "data") -> Path:
        return self.base / "volumes" / name

    def spec(self, name: str = "data") -> VolumeSpec:
        said = {"consistency"} if self.consistency != "auto" else set()
        return VolumeSpec(
            name,
            path=str(self.root(name)),
            optional=name in self.optional,
            exclude=self.exclude,
            consistency=self.consistency,  # type: ignore[arg-type]
            said=frozenset(said),
        )

    @property
    def plan(self) -> Plan:
        return Plan(
            "nightly",
            tuple(self.spec(name) for name in self.names),
            tuple(store.name for store in self.stores),
            self.compression,
            self.full_every,
            self.together,
        )

    def backup(self) -> BackupResult:
        return back_up(self.plan, self.runtime, self.stores)

    def repository(self, number: int = 0) -> Repository:
        return Repository.open(self.stores[number], threads=2, security=self.runtime.security)

    def restore(self, manifest: Manifest, number: int = 0, **request: object) -> RestoreResult:
        wanted = RestoreRequest(**request)  # type: ignore[arg-type]
        repository = self.repository(number)
        configured = {name: self.spec(name) for name in self.names}
        steps = plan_restore(wanted, manifest, repository, self.runtime, configured)
        return restore(steps, wanted, repository, self.runtime)

    def prints(self) -> dict[str, dict[bytes, Facts]]:
        return {name: fingerprint(self.root(name)) for name in self.names}


def put(store: Store, key: str, data: bytes) -> None:
    """Replace an object, as nobody but a test may."""
    store.delete(key)
    store.put(key, data)


def stored(store: Store) -> dict[str, bytes]:
    """What a store holds, but for the means of recovery, which are no part of any snapshot."""
    return {info.key: store.read(info.key) for info in store.list() if info.key not in (SCRIPT, GUIDE)}
