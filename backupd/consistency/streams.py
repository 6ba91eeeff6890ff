"""Tar streams that something is done to on the way."""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from backupd.archive import Member, TarWalker
from backupd.model import TarReport
from backupd.services import TarStream

_KEPT_WARNINGS = 20


class _Wrapped:
    """A stream and nothing else, to be built upon."""

    def __init__(self, stream: TarStream) -> None:
        self._stream = stream

    def readinto(self, buffer: memoryview) -> int:
        """See TarStream."""
        return self._stream.readinto(buffer)

    def finish(self) -> TarReport:
        """See TarStream."""
        return self._stream.finish()

    def __enter__(self) -> Self:
        self._stream.__enter__()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._stream.__exit__(exc_type, exc, tb)


class Remarked(_Wrapped):
    """A stream whose report has warnings besides the job's own."""

    def __init__(self, stream: TarStream, remarks: Sequence[str]) -> None:
        super().__init__(stream)
        self._remarks = remarks

    def finish(self) -> TarReport:
        """See TarStream."""
        report = super().finish()
        warnings = (*self._remarks, *report.warnings)[:_KEPT_WARNINGS]
        return TarReport(report.warning_count + len(self._remarks), warnings, report.moved_count)


class Watched(_Wrapped):
    """A stream that remembers the members of some paths."""

    def __init__(self, stream: TarStream, paths: Sequence[str]) -> None:
        super().__init__(stream)
        self._paths = frozenset(paths)
        self._walker = TarWalker()
        self.seen: dict[str, Member] = {}

    def readinto(self, buffer: memoryview) -> int:
        """See TarStream."""
        count = super().readinto(buffer)
        for member in self._walker.feed(buffer[:count]):
            if member.path in self._paths:
                self.seen[member.path] = member
        return count


class MadeStream:
    """A stream of members that are at hand."""

    def __init__(self, members: Sequence[tuple[tarfile.TarInfo, bytes]]) -> None:
        made = io.BytesIO()
        with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for info, data in members:
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        self._rest = memoryview(made.getvalue())

    def readinto(self, buffer: memoryview) -> int:
        """See TarStream."""
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def finish(self) -> TarReport:
        """See TarStream."""
        return TarReport()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Nothing is held."""


def pattern(path: str) -> str:
    """The exclude pattern that matches this path from the volume's root, and no other."""
    return "/" + re.sub(r"([*?\[\]\\])", r"\\\1", path)
