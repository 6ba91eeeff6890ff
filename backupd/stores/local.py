"""A store in a directory: keys are paths, an object is a file that appears whole or not at all."""

from __future__ import annotations

import math
import os
import secrets
import stat
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from backupd.errors import IntegrityError, ObjectExists, ObjectNotFound, StoreError
from backupd.model import MIB, ObjectInfo, StoreFacts
from backupd.stores.keys import check_key, check_range, is_key
from backupd.stores.localfs import FILE_MODE, boot_id, make_directory, os_errors, publish, sync_directory, try_lock
from backupd.stores.writing import Writer

UNFINISHED = ".unfinished"
"""Directory below the root where objects are written before they get their key. Not listed."""

_NOT_OURS = {UNFINISHED, "lost+found"}  # the latter is ext4's, and readable by root alone
_WRITE_BACK_EVERY = 16 * MIB


class LocalStore:
    """Objects as files below `path`: files 0600, directories 0700, all made by the first write.

    An object is written to a file in `.unfinished/`, flushed, then linked to its name, which fails if that is taken;
    then the directory is flushed. Symbolic links below the root are neither listed nor read.
    """

    def __init__(self, name: str, path: str | os.PathLike[str]) -> None:
        self.name = name
        self._root = Path(path).absolute()
        self._facts: StoreFacts | None = None
        self._lock = threading.Lock()

    def create(self, key: str, size_hint: int | None = None) -> Writer:  # noqa: ARG002  (nothing to choose)
        """Begin a streamed object. Memory: none, each write goes to the file at once."""
        return _LocalWriter(self.name, self._root, self._check(key))

    def put(self, key: str, data: bytes) -> ObjectInfo:
        """Write an object, only if the key is absent."""
        with self.create(key) as writer:
            writer.write(data)
            return writer.commit()

    def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """Exactly the bytes that were asked for."""
        check_range(offset, length)
        descriptor = self._open(key)
        try:
            with os_errors(self.name, f"reading {key}", reading=True):
                size = os.fstat(descriptor).st_size
                if offset + (length or 0) > size:
                    raise IntegrityError(f"store {self.name}: {key} ends at {size}, before what was asked for")
                return _read_exactly(descriptor, offset, size - offset if length is None else length, key)
        finally:
            os.close(descriptor)

    def stat(self, key: str) -> ObjectInfo:
        """Size and time of an object."""
        descriptor = self._open(key)
        try:
            return _info(key, os.fstat(descriptor))
        finally:
            os.close(descriptor)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Every object in key order. Objects that vanish meanwhile are left out, later ones may appear."""
        return self._walk("", prefix)

    def delete(self, key: str) -> None:
        """Remove an object, durably. Directories stay."""
        path = self._root / self._check(key)
        with os_errors(self.name, f"deleting {key}"):
            try:
                path.unlink()
            except (FileNotFoundError, NotADirectoryError):
                return
            sync_directory(path.parent)

    def remove_stale_uploads(self, older_than: timedelta | None, now: datetime) -> Sequence[str]:
        """Remove unfinished files that nobody holds.

        Those of this machine, since it was started, are removed at once: here a lock tells whether a writer lives.
        Others are removed if they were last written before `now - older_than`, and nobody seems to hold them.
        """
        cutoff = (now - older_than).timestamp() if older_than is not None else -math.inf
        removed = []
        mine = f"{boot_id()}-"
        with os_errors(self.name, "removing unfinished files"):
            for path in _files(self._root / UNFINISHED):
                size = _remove_if_stale(path, None if path.name.startswith(mine) else cutoff)
                if size is not None:
                    removed.append(f"{UNFINISHED}/{path.name} ({size} bytes)")
        return removed

    def facts(self) -> StoreFacts:
        """How the file system publishes a file, and whether it refuses to replace one."""
        with self._lock:
            if self._facts is None:
                with os_errors(self.name, f"trying what {self._root} can do"):
                    self._facts = _try_out(self._root)
            return self._facts

    def close(self) -> None:
        """Nothing to let go of."""

    def _check(self, key: str) -> str:
        check_key(key)
        if key.split("/", 1)[0] in _NOT_OURS:
            raise StoreError(f"not a key of a local store: {key}")
        return key

    def _open(self, key: str) -> int:
        path = self._root / self._check(key)
        with os_errors(self.name, f"opening {key}"):
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            except (FileNotFoundError, NotADirectoryError) as exc:
                raise ObjectNotFound(f"store {self.name}: no {key}") from exc
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                return descriptor
            os.close(descriptor)
        raise ObjectNotFound(f"store {self.name}: {key} is not a file")

    def _walk(self, directory: str, prefix: str) -> Iterator[ObjectInfo]:
        with os_errors(self.name, f"listing {self._root / directory}"):
            try:
                with os.scandir(self._root / directory) as entries:
                    # `a.b` comes before `a/b` in key order, so directories are sorted with their slash.
                    found = sorted(e.name + "/" * e.is_dir(follow_symlinks=False) for e in entries)
            except FileNotFoundError:
                return
        for name in found:
            key = directory + name
            if not directory and name.rstrip("/") in _NOT_OURS:
                continue
            if name.endswith("/"):
                if key.startswith(prefix) or prefix.startswith(key):
                    yield from self._walk(key, prefix)
            elif key.startswith(prefix) and is_key(key):
                info = self._info_of_file(key)
                if info is not None:
                    yield info

    def _info_of_file(self, key: str) -> ObjectInfo | None:
        with os_errors(self.name, f"listing {key}"):
            try:
                status = os.lstat(self._root / key)
            except FileNotFoundError:
                return None
            return _info(key, status) if stat.S_ISREG(status.st_mode) else None


class _LocalWriter(Writer):
    """Writes a file in `.unfinished/`, locked for as long as it lives so that nobody takes it for a leftover."""

    def __init__(self, store: str, root: Path, key: str) -> None:
        super().__init__(key)
        self._store = store
        self._target = root / key
        self._written = self._on_its_way = 0
        with os_errors(store, f"beginning {key} in {root}"):
            self._path, self._descriptor = _new_file(root)

    def _append(self, data: memoryview) -> None:
        with os_errors(self._store, f"writing {self._key}"):
            while data:
                count = os.write(self._descriptor, data)
                self._written += count
                data = data[count:]
            if self._written - self._on_its_way >= _WRITE_BACK_EVERY:
                # Makes Linux begin to write it to disk, so that `fsync` finds little left to wait for.
                os.posix_fadvise(
                    self._descriptor, self._on_its_way, self._written - self._on_its_way, os.POSIX_FADV_DONTNEED
                )
                self._on_its_way = self._written

    def _finish(self) -> ObjectInfo:
        with os_errors(self._store, f"writing {self._key}"):
            os.fsync(self._descriptor)
            make_directory(self._target.parent)
            try:
                publish(self._path, self._target)
            except FileExistsError as exc:
                raise ObjectExists(f"store {self._store}: {self._key} exists") from exc
            info = _info(self._key, os.fstat(self._descriptor))
        os.close(self._descriptor)
        return info

    def _abort(self) -> None:
        with os_errors(self._store, f"removing what was written of {self._key}"):
            try:
                self._path.unlink(missing_ok=True)
            finally:
                os.close(self._descriptor)


def _new_file(root: Path) -> tuple[Path, int]:
    """It gets the name of one of this machine when it has its lock: without one it might be taken for a leftover."""
    directory = root / UNFINISHED
    make_directory(directory)
    token = secrets.token_hex(16)
    new, path = directory / f"new-{token}", directory / f"{boot_id()}-{token}"
    descriptor = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL, FILE_MODE)
    if try_lock(descriptor) is None:
        return new, descriptor
    new.rename(path)
    return path, descriptor


def _info(key: str, status: os.stat_result) -> ObjectInfo:
    return ObjectInfo(key, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))


def _read_exactly(descriptor: int, offset: int, length: int, key: str) -> bytes:
    pieces = []
    while length:
        piece = os.pread(descriptor, length, offset)
        if not piece:
            raise IntegrityError(f"{key} ends at {offset}: it was cut while it was read")
        pieces.append(piece)
        offset += len(piece)
        length -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _files(directory: Path) -> Sequence[Path]:
    try:
        return sorted(path for path in directory.iterdir() if path.is_file())
    except FileNotFoundError:
        return ()


def _remove_if_stale(path: Path, cutoff: float | None) -> int | None:
    """Remove a file unless it is younger than `cutoff`, if that is given, or locked; its size, or None if it stays."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        status = os.fstat(descriptor)
        if (cutoff is not None and status.st_mtime >= cutoff) or try_lock(descriptor) is False:
            return None
        path.unlink(missing_ok=True)
        return status.st_size
    finally:
        os.close(descriptor)


def _try_out(root: Path) -> StoreFacts:
    """Publish two files under one name: the second must be refused."""
    made = [_new_file(root) for _ in range(2)]
    (first, _), (second, _) = made
    target = first.with_suffix(".probe")
    try:
        way = publish(first, target)
        try:
            publish(second, target)
            refused = False
        except FileExistsError:
            refused = way != "rename"
    finally:
        for path, descriptor in made:
            path.unlink(missing_ok=True)
            os.close(descriptor)
        target.unlink(missing_ok=True)
    return StoreFacts(conditional_create=refused, details={"kind": "local", "path": str(root), "published by": way})
