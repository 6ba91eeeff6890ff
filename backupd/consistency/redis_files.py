"""The files of a Redis in its volume, and the append-only file that a restored one has to find.

With `appendonly yes` a server loads its append-only file and nothing else: without one it starts empty and says nothing
(redis.io, "Redis persistence"). Since Redis 7 that is a directory with a manifest (`aof.c`, "Multi Part AOF"), before
it was one file, which may begin with an RDB. So what is saved becomes the base of a new one, without any tail that
could be cut off in the middle.
"""

from __future__ import annotations

import posixpath
import tarfile
from collections.abc import Sequence

from msgspec import Struct

from backupd.archive import Member
from backupd.consistency.redis_server import HINT, RedisServer
from backupd.consistency.streams import pattern
from backupd.errors import SourceError
from backupd.model import Volume

_MULTI_PART = 7
_WITH_PREAMBLE = 4
_DIRECTORY_MODE = 0o755


class RedisFiles(Struct, frozen=True):
    """Paths from the root. `aof_name` is None without append-only file, `aof_directory` nor before Redis 7."""

    directory: str
    rdb: str
    aof_directory: str | None = None
    aof_name: str | None = None

    @property
    def left_out(self) -> Sequence[str]:
        """Exclude patterns for what is being written, and for what the saved data take the place of."""
        base = pattern(self.directory).rstrip("/")
        temporary = (f"{base}/temp-*.rdb", f"{base}/temp-rewriteaof-*.aof")
        if self.aof_directory is not None:
            return (*temporary, f"{pattern(self.aof_directory)}/*")
        if self.aof_name is not None:
            return (*temporary, pattern(posixpath.join(self.directory, self.aof_name)))
        return temporary

    def place(self, path: str) -> str:
        """Where a file of the volume goes in the archive: an old server's saved data are its append-only file."""
        if path == self.rdb and self.aof_name is not None and self.aof_directory is None:
            return posixpath.join(self.directory, self.aof_name)
        return path

    def append_only(self, rdb: Member, directory: Member | None) -> list[tuple[tarfile.TarInfo, bytes]]:
        """The members of a multi-part append-only file whose base is the saved file, by a hard link."""
        if self.aof_directory is None:
            return []
        base = f"{self.aof_name}.1.base.rdb"
        link = self._made(base, rdb, rdb.mode)
        link.type, link.linkname = tarfile.LNKTYPE, f"./{self.rdb}"
        manifest = f"file {_quoted(base)} seq 1 type b\n".encode()
        members = [(link, b""), (self._made(f"{self.aof_name}.manifest", rdb, rdb.mode), manifest)]
        if directory is None:
            made = self._made("", rdb, _DIRECTORY_MODE)
            made.type = tarfile.DIRTYPE
            members.insert(0, (made, b""))
        return members

    def _made(self, name: str, like: Member, mode: int) -> tarfile.TarInfo:
        info = tarfile.TarInfo(posixpath.join(".", self.aof_directory or "", name))
        info.uid, info.gid, info.mode, info.mtime = like.uid, like.gid, mode, like.mtime // 1_000_000_000
        return info


def files_of(server: RedisServer, volume: Volume) -> RedisFiles:
    """Where the server keeps its data; SourceError if that is not in the volume."""
    place = server.setting("dir")
    if not place.startswith("/"):
        raise SourceError(f"{server.service.name} does not say where it keeps its data", hint=HINT)
    mounts = [mount for mount in server.service.mounts if _is_within(place, mount.destination)]
    nearest = max(mounts, key=lambda mount: len(mount.destination), default=None)
    if nearest is None or nearest.source != volume.source:
        raise SourceError(f"{server.service.name} keeps its data in {place}, which is not in {volume}", hint=HINT)
    directory = posixpath.relpath(place, nearest.destination)
    directory = "" if directory == "." else directory
    rdb = posixpath.join(directory, server.setting("dbfilename", "dump.rdb"))
    if server.setting("appendonly") != "yes":
        return RedisFiles(directory, rdb)
    name = server.setting("appendfilename", "appendonly.aof")
    version = _major(server)
    if version >= _MULTI_PART:
        return RedisFiles(directory, rdb, posixpath.join(directory, server.setting("appenddirname")), name)
    if version < _WITH_PREAMBLE:
        raise SourceError(f"{server.service.name} is too old for `consistency: redis` with appendonly", hint=HINT)
    return RedisFiles(directory, rdb, None, name)


def _major(server: RedisServer) -> int:
    """What version of Redis it is, or claims to be like: multi-part append-only files are known by their directory."""
    if server.setting("appenddirname"):
        return _MULTI_PART
    first = server.info().get("redis_version", "").split(".")[0]
    return int(first) if first.isdigit() else 0


def _is_within(path: str, directory: str) -> bool:
    return posixpath.commonpath([path, directory]) == posixpath.normpath(directory)


def _quoted(name: str) -> str:
    """A name as the manifest has it: in quotes if it holds blanks or quotes (`aof.c`, sdscatrepr)."""
    if not any(character in name for character in " \t\"'\\"):
        return name
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"').replace("\t", "\\t") + '"'
