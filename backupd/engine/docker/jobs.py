"""Tar jobs in helper containers, by pipe or by the attached connection."""

from __future__ import annotations

import contextlib
import os
import select
import socket
from pathlib import Path
from types import TracebackType
from typing import Self

from backupd.engine.docker.frames import Frames
from backupd.engine.docker.helper import Ending, Helper
from backupd.engine.docker.listener import Listener
from backupd.engine.docker.trailer import READY_WORD, Untrailed, exit_code_in
from backupd.engine.pipes import widen
from backupd.engine.verdict import Complaints, judge
from backupd.errors import SourceError
from backupd.model import TarReport

PipeSource = contextlib.AbstractContextManager[Path]


class _Job:
    """What the four kinds of jobs have in common: their resources, and the judgement."""

    def __init__(self, what: str, nonce: str, helper: Helper, complaints: Complaints) -> None:
        self.what = what
        self._nonce = nonce
        self._helper = helper
        self._complaints = complaints
        self._resources = contextlib.ExitStack()

    def __enter__(self) -> Self:
        try:
            self._begin()
        except BaseException:
            self._resources.close()
            raise
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._resources.close()

    def _begin(self) -> None:
        raise NotImplementedError

    def _report(self, last_words: bytes) -> TarReport:
        """Success takes both: the helper's word that tar ended well, and the engine's that the helper did."""
        ending = self._helper.wait()
        self._complaints.close()
        said = exit_code_in(last_words, self._nonce)
        if said is None and ending.exit_code in {0, 1}:
            reason = self._complaints.last_line or "its last words are missing"
            raise SourceError(f"{self.what}: the helper container ended early: {reason}")
        return judge(self.what, self._complaints, _worse(said, ending), out_of_memory=ending.out_of_memory)


def _worse(said: int | None, ending: Ending) -> int:
    return ending.exit_code if said is None or ending.exit_code != 0 else said


class AttachOutput(_Job):
    """TarOutput whose stream is the helper's stdout."""

    def get_ready(self) -> None:
        """A helper whose output nobody holds back begins to read at once: it has to wait."""

    def _begin(self) -> None:
        self._resources.enter_context(self._helper)
        self._stream = Untrailed(Frames(self._helper.connection, self._complaints.feed).readinto)

    def readinto(self, buffer: memoryview) -> int:
        """See TarOutput."""
        return self._stream.readinto(buffer)

    def finish(self) -> TarReport:
        """See TarOutput."""
        if not self._stream.ended:
            raise SourceError(f"{self.what}: the stream was not read to its end")
        return self._report(self._stream.tail)


class PipeOutput(_Job):
    """TarOutput whose stream is a FIFO.

    The helper waits at the pipe until this process opens it. It holds a writing end until the first byte has come, so
    that a pipe without a writer yet is not taken for one that has ended; the listener tells when none will come.
    """

    def __init__(self, what: str, nonce: str, helper: Helper, complaints: Complaints, pipe: PipeSource) -> None:
        super().__init__(what, nonce, helper, complaints)
        self._pipe = pipe
        self._path: Path | None = None
        self._stream = Untrailed(self._read_pipe)

    def get_ready(self) -> None:
        """Start the helper, which reads nothing before the block is entered. `__exit__` ends it, entered or not."""
        path = self._resources.enter_context(self._pipe)
        helper = self._resources.enter_context(self._helper)
        self._listener = self._resources.enter_context(Listener(helper, self._complaints.feed))
        self._path = path

    def _begin(self) -> None:
        if self._path is None:
            self.get_ready()
        assert self._path is not None
        self._reader_end = self._resources.enter_context(_Descriptor(self._path, os.O_RDONLY))
        self._reader = self._reader_end.number
        self._keeper = self._resources.enter_context(_Descriptor(self._path, os.O_WRONLY))
        widen(self._reader)
        self._events = select.poll()
        self._events.register(self._reader, select.POLLIN)
        self._events.register(self._listener.ended, select.POLLIN)

    def readinto(self, buffer: memoryview) -> int:
        """See TarOutput."""
        return self._stream.readinto(buffer)

    def _read_pipe(self, buffer: memoryview) -> int:
        while True:
            try:
                count = os.readv(self._reader, [buffer])
            except BlockingIOError:
                if self._listener.ended in dict(self._events.poll()):
                    self._events.unregister(self._listener.ended)
                    self._keeper.close()
                continue
            if count:
                self._keeper.close()
            return count

    def finish(self) -> TarReport:
        """See TarOutput."""
        if not self._stream.ended:
            raise SourceError(f"{self.what}: the stream was not read to its end")
        self._listener.stdout()
        return self._report(self._stream.tail)


class _Input(_Job):
    """What both kinds of TarInput share: the helper says on stdout that it has ended."""

    _listener: Listener
    _satisfied = False

    def write(self, data: bytes | memoryview) -> None:
        """See TarInput. What follows the archive's end mark is padding, which tar need not read."""
        if self._satisfied:
            return
        try:
            self._send(memoryview(data).cast("B"))
        except (BrokenPipeError, ConnectionResetError):
            self._conclude()  # raises, unless tar has read all that it wanted
            self._satisfied = True

    def finish(self) -> TarReport:
        """See TarInput."""
        self._end_stream()
        return self._conclude()

    def _send(self, view: memoryview) -> None:
        raise NotImplementedError

    def _end_stream(self) -> None:
        raise NotImplementedError

    def _conclude(self) -> TarReport:
        return self._report(self._listener.stdout())


class AttachInput(_Input):
    """TarInput whose stream is the helper's stdin.

    When a container ends, the engine ends its side of the connection but, for minutes, neither reads nor closes the
    other: sending must not block, and the listener tells that nobody is there.
    """

    def _begin(self) -> None:
        helper = self._resources.enter_context(self._helper)
        self._listener = self._resources.enter_context(Listener(helper, self._complaints.feed))
        self._events = select.poll()
        self._events.register(helper.connection, select.POLLOUT)
        self._events.register(self._listener.ended, select.POLLIN)

    def _send(self, view: memoryview) -> None:
        while view:
            if self._listener.ended in dict(self._events.poll()):
                raise BrokenPipeError
            with contextlib.suppress(BlockingIOError):
                view = view[self._helper.connection.send(view, socket.MSG_DONTWAIT) :]

    def _end_stream(self) -> None:
        with contextlib.suppress(OSError):  # a helper that is gone needs no telling
            self._helper.connection.shutdown(socket.SHUT_WR)


class PipeInput(_Input):
    """TarInput whose stream is a FIFO.

    This process holds a reading end until the helper has said that it has opened the pipe; from then on a dead helper
    is a broken pipe.
    """

    def __init__(self, what: str, nonce: str, helper: Helper, complaints: Complaints, pipe: PipeSource) -> None:
        super().__init__(what, nonce, helper, complaints)
        self._pipe = pipe

    def _begin(self) -> None:
        pipe = self._resources.enter_context(self._pipe)
        with _Descriptor(pipe, os.O_RDONLY) as keeper:
            self._writer = self._resources.enter_context(_Descriptor(pipe, os.O_WRONLY))
            widen(keeper.number)
            helper = self._resources.enter_context(self._helper)
            self._listener = self._resources.enter_context(Listener(helper, self._complaints.feed))
            if not self._listener.wait_for(f"{READY_WORD} {self._nonce}".encode()):
                self._conclude()
                raise SourceError(f"{self.what}: the helper container ended before it began")
        os.set_blocking(self._writer.number, True)

    def _send(self, view: memoryview) -> None:
        while view:
            view = view[os.write(self._writer.number, view) :]

    def _end_stream(self) -> None:
        self._writer.close()


class _Descriptor:
    """An open FIFO end that can be closed twice."""

    def __init__(self, path: Path, flags: int) -> None:
        self.number = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)

    def close(self) -> None:
        if self.number >= 0:
            os.close(self.number)
            self.number = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()
