"""Reads the volume of a running Redis, Valkey or KeyDB: what it saves for us, the rest as files. No downtime."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from types import TracebackType
from typing import Self

from backupd.archive import Member, Part, Splice
from backupd.consistency.redis_access import is_server, words_of
from backupd.consistency.redis_check import Checked, check, is_of
from backupd.consistency.redis_files import RedisFiles, files_of
from backupd.consistency.redis_save import save
from backupd.consistency.redis_server import HINT, RedisServer, reach
from backupd.consistency.streams import MadeStream, Remarked, Watched
from backupd.errors import EngineUnavailable, SourceError
from backupd.model import TarReport, Volume, VolumeSpec
from backupd.runtime import Runtime
from backupd.services import Outcome, Service, Source, TarStream

_IMAGES = frozenset({"redis", "valkey", "keydb", "redis-stack", "redis-stack-server"})
_MOST_PASSES = 3


def recognises(service: Service, volume: Volume) -> bool:
    """Whether a container is a server of this kind, by its image or by what it runs."""
    name = service.image.partition("@")[0].rpartition("/")[2].partition(":")[0]
    words = words_of(service)
    return service.writes(volume) and (is_server(words) or (name in _IMAGES and "--sentinel" not in words))


class RedisStrategy:
    """BGSAVE, then the volume's files with the saved data in the place of a live append-only file.

    Every write that was acknowledged before `Outcome.moment` is in it. No setting of the server is changed.
    """

    name = "redis"

    def __init__(self, spec: VolumeSpec, volume: Volume, users: Sequence[Service], runtime: Runtime) -> None:
        self._spec = spec
        self._volume = volume
        self._users = users
        self._runtime = runtime

    def read(self, source: Source) -> _RedisReading | _RestingReading:
        """See Strategy. A server that does not run has nothing that is not in its files."""
        alive = [user for user in self._users if user.alive and user.writes(self._volume)]
        if not alive:
            return _RestingReading(self._runtime, source)
        servers = [user for user in alive if recognises(user, self._volume)] or alive
        problem: SourceError | None = None
        for service in servers:
            try:
                server = reach(self._runtime.engine.services, service, self._spec)
                return _RedisReading(self._runtime, source, server, files_of(server, self._volume))
            except EngineUnavailable:
                raise
            except SourceError as exc:
                problem = problem or exc
        assert problem is not None
        problem.hint = problem.hint or HINT
        raise problem


class _Block:
    """A block that holds nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Nothing is held."""


class _RestingReading(_Block):
    def __init__(self, runtime: Runtime, source: Source) -> None:
        self._runtime = runtime
        self._source = source
        self._moment = runtime.clock.now()

    def next(self, last: TarReport | None) -> TarStream | None:
        """See Reading."""
        if last is not None:
            return None
        return self._runtime.engine.tar_out(self._source.volume, self._source.spec.exclude)

    def outcome(self) -> Outcome:
        """See Reading."""
        return Outcome("redis: not running", self._moment)


class _RedisReading(_Block):
    """Passes are repeated where the server saved anew meanwhile, so that what is kept is what was checked."""

    def __init__(self, runtime: Runtime, source: Source, server: RedisServer, files: RedisFiles) -> None:
        self._runtime = runtime
        self._source = source
        self._server = server
        self._files = files
        self._moment: datetime | None = None
        self._checked: Checked | None = None
        self._watched: Watched | None = None
        self._passes = 0

    def next(self, last: TarReport | None) -> TarStream | None:
        """See Reading."""
        if last is None:
            self._moment = save(self._server, self._runtime.clock, self._runtime.progress.note)
            self._check()
        elif self._is_checked():
            return None
        self._passes += 1
        return self._stream()

    def _check(self) -> None:
        self._checked = check(self._server, self._source.volume, self._files.rdb)

    def _is_checked(self) -> bool:
        """Whether the file that was read is the one that was checked, or is it now."""
        if self._checked is None or is_of(self._checked, self._seen):
            return True
        self._check()
        if self._checked is None or is_of(self._checked, self._seen):
            return True
        if self._passes < _MOST_PASSES:
            return False
        self._runtime.progress.note(f"{self._source.spec.name}: the server saves too often for its file to be checked")
        return True

    def _stream(self) -> TarStream:
        exclude = (*self._source.spec.exclude, *self._files.left_out)
        stream = self._runtime.engine.tar_out(self._source.volume, exclude)
        self._watched = Watched(stream, [self._files.rdb, self._files.aof_directory or ""])
        remarks = [self._checked.remark] if self._checked is not None and self._checked.remark else []
        return Remarked(Splice(self._parts(self._watched)), remarks)

    def _parts(self, watched: Watched) -> Iterator[Part]:
        yield Part(watched, self._files.place)
        rdb = self._seen
        yield Part(MadeStream(self._files.append_only(rdb, watched.seen.get(self._files.aof_directory or ""))))

    @property
    def _seen(self) -> Member:
        rdb = self._watched.seen.get(self._files.rdb) if self._watched is not None else None
        if rdb is None:
            raise SourceError(
                f"{self._server.service.name} saved its data to {self._files.rdb}, but tar did not read that",
                hint="is it excluded?",
            )
        return rdb

    def outcome(self) -> Outcome:
        """See Reading."""
        return Outcome("redis", self._moment)
