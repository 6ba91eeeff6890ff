"""Tar jobs that are processes of this machine, streams included."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import IO, Self, cast

from backupd.engine.pipes import widen
from backupd.engine.verdict import Complaints, failure, judge
from backupd.engine.within import Within
from backupd.engine.writeback import NOT_ON_DISK, WriteBack
from backupd.errors import SourceError
from backupd.model import TarReport

STDERR_READ_BYTES = 65536


class LocalJob:
    """A process in its place, its stderr read by a thread. Leaving the block kills what is left of it."""

    def __init__(
        self, what: str, place: Within, command: Sequence[str], complaints: Complaints, *, reads_stdin: bool
    ) -> None:
        self.what = what
        self._complaints = complaints
        try:
            self._process = place.start(
                command,
                stdin=subprocess.PIPE if reads_stdin else subprocess.DEVNULL,
                stdout=subprocess.DEVNULL if reads_stdin else subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
            )
        except OSError as exc:
            raise SourceError(f"{what}: cannot run {command[0]}: {exc.strerror}") from exc
        self.stream = cast(IO[bytes], self._process.stdin if reads_stdin else self._process.stdout)
        widen(self.stream.fileno())
        self._stderr = cast(IO[bytes], self._process.stderr)
        self._listener = threading.Thread(target=self._listen, name=f"stderr of {command[0]}", daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        while data := self._stderr.read(STDERR_READ_BYTES):
            self._complaints.feed(data)
        self._complaints.close()

    def finish(self) -> TarReport:
        """Close the stream, wait, judge."""
        self.close_stream()
        code = self._process.wait()
        self._listener.join()
        return judge(self.what, self._complaints, code if code >= 0 else 128 - code)

    def close_stream(self) -> None:
        """To a job that reads this is the end of its input; one that died before has said why on stderr."""
        with contextlib.suppress(BrokenPipeError):
            self.stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self.close_stream()
        self._process.wait()
        self._listener.join()
        self._stderr.close()


class LocalOutput(LocalJob):
    """TarOutput of a local tar."""

    def __init__(self, what: str, place: Within, command: Sequence[str], complaints: Complaints) -> None:
        super().__init__(what, place, command, complaints, reads_stdin=False)
        self._ended = False

    def readinto(self, buffer: memoryview) -> int:
        """See TarOutput."""
        count = os.readv(self.stream.fileno(), [buffer])
        self._ended = count == 0
        return count

    def finish(self) -> TarReport:
        """See TarOutput."""
        if not self._ended:
            raise SourceError(f"{self.what}: the stream was not read to its end")
        return super().finish()


class LocalInput(LocalJob):
    """TarInput of a local tar. `kept`: see Engine.tar_in."""

    def __init__(
        self, what: str, place: Within, command: Sequence[str], complaints: Complaints, *, kept: bool = False
    ) -> None:
        self._satisfied = False
        self._write_back = WriteBack(place.directory) if kept else None
        try:
            super().__init__(what, place, command, complaints, reads_stdin=True)
        except BaseException:
            if self._write_back:
                self._write_back.stop()
            raise

    def write(self, data: bytes | memoryview) -> None:
        """See TarInput. What follows the archive's end mark is padding, which tar need not read."""
        view = memoryview(data).cast("B")
        try:
            while view and not self._satisfied:
                view = view[os.write(self.stream.fileno(), view) :]
        except BrokenPipeError:
            self.finish()  # raises, unless tar has read all that it wanted
            self._satisfied = True

    def finish(self) -> TarReport:
        """See TarInput."""
        report = super().finish()
        try:
            if self._write_back:
                self._write_back.finish()
        except OSError as exc:
            raise failure(self.what, f"{NOT_ON_DISK}: {exc.strerror}") from exc
        return report

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._write_back:
            self._write_back.stop()
        super().__exit__(exc_type, exc, tb)
