"""Tar streams that are there already, as what is given to operations that read volumes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from backupd.errors import SourceError
from backupd.model import TarReport
from backupd.services import TarStream


@dataclass
class Given:
    """A stream that is there already; `sizes` of its reads, round and round."""

    data: bytes
    report: TarReport = field(default_factory=TarReport)
    error: str | None = None
    sizes: Sequence[int] = (1 << 20,)
    events: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._source = io.BytesIO(self.data)
        self._reads = 0

    def readinto(self, buffer: memoryview) -> int:
        self._reads += 1
        return self._source.readinto(buffer[: self.sizes[self._reads % len(self.sizes)]])

    def finish(self) -> TarReport:
        self.events.append("finish")
        if self.error:
            raise SourceError(self.error)
        return self.report

    def __enter__(self) -> Self:
        self.events.append("enter")
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.events.append("exit")


def everything(stream: TarStream, size: int = 1 << 20) -> bytes:
    pieces = []
    buffer = memoryview(bytearray(size))
    with stream:
        while count := stream.readinto(buffer):
            pieces.append(bytes(buffer[:count]))
        stream.finish()
    return b"".join(pieces)
