"""Strategies driven without a repository: what they read, and what a volume is that was restored from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from backupd.model import MIB, TarReport, Volume, VolumeSpec
from backupd.ports import Engine
from backupd.runtime import Runtime
from backupd.services import Outcome, Source, Strategy
from backupd.wiring import SystemClock
from tests.support.runtime import RecordingProgress, make_runtime


@dataclass(frozen=True)
class Read:
    """The stream that would be kept, its report, and the outcome."""

    stream: bytes
    report: TarReport
    outcome: Outcome
    passes: int


def read_with(strategy: Strategy, spec: VolumeSpec, volume: Volume) -> Read:
    report: TarReport | None = None
    stream = bytearray()
    passes = 0
    buffer = memoryview(bytearray(MIB))
    with strategy.read(Source(spec, volume, first=True)) as reading:
        while (output := reading.next(report)) is not None:
            stream = bytearray()
            passes += 1
            with output:
                while count := output.readinto(buffer):
                    stream += buffer[:count]
                report = output.finish()
        assert report is not None
        return Read(bytes(stream), report, reading.outcome(), passes)


def write(engine: Engine, volume: Volume, stream: bytes) -> None:
    with engine.tar_in(volume) as target:
        target.write(stream)
        target.finish()


def runtime_of(engine: Engine, state: Path) -> Runtime:
    """A runtime whose clock is the real one."""
    return replace(make_runtime(state, engine), clock=SystemClock())


def notes_of(runtime: Runtime) -> list[str]:
    assert isinstance(runtime.progress, RecordingProgress)
    return runtime.progress.notes
