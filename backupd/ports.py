"""What the operations need of the outside world, as Protocols: engines, stores, progress and time.

An implementation of Engine passes `tests/contract/test_engines.py`, one of Store `tests/contract/test_stores.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from backupd.model import Consumer, ObjectInfo, StoreFacts, TarReport, Tool, Volume, VolumeSpec
from backupd.sandbox import Sandbox
from backupd.services import Services


class _Closing(Protocol):
    def __enter__(self) -> Self: ...

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None: ...


class TarOutput(_Closing, Protocol):
    """A running tar job that reads a volume.

    Read to the end, then call `finish`. Leaving the `with` block without a successful `finish` ends the job, by force
    if need be, and leaves nothing behind. Not thread-safe.
    """

    def readinto(self, buffer: memoryview) -> int:
        """Fill `buffer` with the next bytes of the tar stream, at least one; 0 at its end.

        The end of the stream is not success: only `finish` tells.
        """
        ...

    def finish(self) -> TarReport:
        """Wait for the job to end; SourceError unless it ended well. Changed and vanished files are warnings."""
        ...


class TarInput(_Closing, Protocol):
    """A running tar job that writes a volume. The same rules as for TarOutput."""

    def write(self, data: bytes | memoryview) -> None:
        """Hand over all of `data`; SourceError when the job has died, with what it said."""
        ...

    def finish(self) -> TarReport:
        """Signal the end of the stream and wait; SourceError unless tar extracted everything."""
        ...


class Engine(Protocol):
    """Where volumes live and tar jobs run."""

    name: str
    services: Services

    def find(self, spec: VolumeSpec) -> Volume:
        """The volume that `spec` names; VolumeMissing if there is none, SourceError if the name fits several."""
        ...

    def volumes(self) -> Sequence[Volume]:
        """All volumes of the Compose project that the engine was given, by name; none without a project."""
        ...

    def inspect(self, volume: Volume) -> Volume | None:
        """The volume of that kind and source as it is now (labels included), or None if it does not exist."""
        ...

    def create(self, volume: Volume) -> None:
        """Create a volume or directory as recorded: driver, options, labels. Not an error if it exists."""
        ...

    def remove(self, volume: Volume) -> None:
        """Remove a volume or directory that holds nothing; not an error if there is none.

        SourceError if something uses it, or if it is a directory that is not empty. A Docker volume goes with what is
        in it: the caller has looked.
        """
        ...

    def consumers(self, volume: Volume) -> Sequence[Consumer]:
        """The running containers that mount the volume; none where the engine cannot know."""
        ...

    def tool(self) -> Tool:
        """The tar that jobs of this engine run."""
        ...

    def tar_out(self, volume: Volume, exclude: Sequence[str] = (), subdirectory: str = "") -> TarOutput:
        """Start reading a volume, or a directory of it as if it were one. The first member is the root itself, `./`.

        `exclude` holds shell patterns: one without a slash matches a name at any depth, one with a slash a path from
        the volume's root; what lies below a matched directory goes with it. backupd's own staging directories are
        always left out. What cannot be read is a SourceError in `finish`.
        """
        ...

    def ready_to_read(
        self, volume: Volume, exclude: Sequence[str] = ()
    ) -> AbstractContextManager[Callable[[], TarOutput]]:
        """Have all ready for a `tar_out` that begins to read at a call, once: what takes time is done by then."""
        ...

    def tar_in(self, volume: Volume, subdirectory: str = "", *, acls: bool = False, kept: bool = False) -> TarInput:
        """Start extracting into `subdirectory` of the volume (created, mode 0700, if it is missing).

        Owners are numeric, permissions and times those of the stream. Nothing outside the volume can be written.
        `acls` is for a stream whose ACLs are in tar's own form: without it these are lost, with it those that are
        attributes. Without it files also get what a default ACL of `subdirectory` hands down. `kept` is for what is to
        be flushed in the end: it begins to be written to disk meanwhile, with all else of its file system.
        """
        ...

    def run_script(self, volume: Volume, script: str, arguments: Sequence[str] = ()) -> str:
        """Run a POSIX shell script with the volume's root as working directory, read-write; returns its stdout.

        It gets the rights that tar_in has, and no others. A script that exits non-zero is a SourceError carrying the
        last line of its stderr. The script is killed with the caller where that is possible, but never counts on it.
        """
        ...

    def scratch(self) -> AbstractContextManager[Volume]:
        """An empty volume of this process's own, for copies that nobody else is to see, on disk.

        Removed with the end of the block, and by `remove_leftovers` if this process dies in it.
        """
        ...

    def run_python(self, arguments: Sequence[str], volume: Volume, scratch: Volume) -> str:
        """Run Python 3 with these arguments and, behind them, the directories of both volumes; returns its stdout.

        It may read the volume whole, become the owner of any file in it, and give files of its own to anybody. A
        program that exits non-zero is a SourceError carrying the last line of its stderr; so is a lack of Python 3.
        """
        ...

    def remove_leftovers(self) -> Sequence[str]:
        """Remove helpers, pipes and copies that a killed process left behind; says what was removed, a line each."""
        ...

    def sandbox(self, drill: str, directory: Path) -> Sandbox:
        """A place for a drill of that id; what it has to have on this machine goes into `directory`.

        What a killed process left of it, `remove_leftovers` removes, or the caller with the directory.
        """
        ...

    def close(self) -> None:
        """Let go of connections. The engine is not used afterwards."""
        ...


class ObjectWriter(_Closing, Protocol):
    """An object being written. It exists under its key only after `commit`.

    Leaving the `with` block without `commit` aborts: nothing is left under the key, and what was sent is removed.
    """

    def write(self, data: bytes | memoryview) -> None:
        """Append. May return before the bytes are sent; an earlier failure is raised by a later call."""
        ...

    def commit(self) -> ObjectInfo:
        """Make the object durable and visible under its key, whole; then it is in every later `list` and `read`."""
        ...


class Store(Protocol):
    """Bytes by key. Keys are relative POSIX paths without `.` or `..`. Thread-safe.

    Errors: ObjectNotFound, ObjectExists, StoreDenied, StoreFull, StoreUnavailable (the only one that may be retried;
    implementations have retried already, within bounds), StoreError for all else.
    """

    name: str

    def create(self, key: str, size_hint: int | None = None) -> ObjectWriter:
        """Begin a streamed object. `size_hint` is an estimate of its size in bytes, for choosing part sizes.

        The writer's `commit` must not replace an existing object where the store can tell (ObjectExists).
        """
        ...

    def put(self, key: str, data: bytes) -> ObjectInfo:
        """Write a small object whole, only if the key is absent; ObjectExists otherwise, decided by the store."""
        ...

    def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """Exactly `length` bytes from `offset` (to the end if None).

        An object that ends earlier is an IntegrityError: the caller asked for what the index says is there. So is one
        that is there and cannot be read, as far as that can be told from a store that is in trouble as a whole.
        """
        ...

    def stat(self, key: str) -> ObjectInfo:
        """What the store holds under `key` at this moment; ObjectNotFound if nothing."""
        ...

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Every object whose key starts with `prefix`, in key order. Unfinished writes are not listed."""
        ...

    def delete(self, key: str) -> None:
        """Remove one object; a key that is absent is not an error. Refusal is StoreDenied."""
        ...

    def remove_stale_uploads(self, older_than: timedelta | None, now: datetime) -> Sequence[str]:
        """Remove what killed writers left unfinished; says what was removed.

        That of this machine's goes at once, that of others if it was begun before `now - older_than`, by the store's
        clock as near as it is known; with None it stays.
        """
        ...

    def facts(self) -> StoreFacts:
        """What this store can do, found out by trying once and remembered."""
        ...

    def close(self) -> None:
        """Let go of connections and threads."""
        ...


class Progress(Protocol):
    """Told how an operation gets on; shows it, or does not. Called from one thread at a time, not always the same."""

    def begin(self, label: str, total: int | None = None) -> None:
        """A new stretch of work, of `total` plain bytes if that is known."""
        ...

    def advance(self, count: int) -> None:
        """`count` more plain bytes are done."""
        ...

    def end(self) -> None:
        """The current stretch is over, well or not."""
        ...

    def note(self, text: str) -> None:
        """A line that the user should see: a step taken, a warning."""
        ...


class Clock(Protocol):
    """Where time comes from."""

    def now(self) -> datetime:
        """The current time, timezone-aware, in UTC."""
        ...
