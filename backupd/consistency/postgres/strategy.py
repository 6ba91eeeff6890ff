"""PostgreSQL: copied by its own means while it runs, so that nobody waits.

The result is a plain data directory with the WAL that it needs: a server that is started on it recovers to the end of
the copy. What lies beside the data directory in the volume is copied as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from types import TracebackType
from typing import Self

from backupd.archive import Edit, Part, Splice
from backupd.consistency.held import HeldStrategy
from backupd.consistency.postgres.copying import Copy, start_copy
from backupd.consistency.postgres.leaving_out import leaving_out, literal
from backupd.consistency.postgres.recognise import inside, recognises
from backupd.consistency.postgres.server import Server, find_place, find_server
from backupd.errors import SourceError
from backupd.model import TarReport, Volume, VolumeSpec
from backupd.runtime import Runtime
from backupd.services import Outcome, Reading, Service, Source, TarStream

_LAST_BEFORE_THE_END = "global/pg_control"


class PostgresStrategy:
    """See Strategy. Without a server that runs, the files are copied as they are: nobody writes them."""

    name = "postgres"

    def __init__(self, spec: VolumeSpec, volume: Volume, users: Sequence[Service], runtime: Runtime) -> None:
        self._spec = spec
        self._volume = volume
        self._users = users
        self._runtime = runtime

    def read(self, source: Source) -> Reading:
        """See Strategy."""
        if self._volume.kind == "directory":
            raise SourceError(
                f"{self._volume}: who uses it is not known here, and so PostgreSQL cannot be asked for a copy",
                hint="use the docker engine; or stop the server with `pre` and `post` commands and choose `live`",
            )
        service = self._service()
        if service is None:
            return _ColdReading(self._runtime, source)
        place = find_place(self._runtime.engine.services, service, self._volume)
        server = find_server(self._runtime.engine.services, place, self._spec)
        if reason := _not_by_itself(server):
            self._runtime.progress.note(f"{self._spec.name}: {reason}, so that the server is stopped for its copy")
            return HeldStrategy("stop", self._spec, self._volume, self._users, self._runtime).read(source)
        if server.facts.in_recovery:
            self._runtime.progress.note(
                f"{self._spec.name}: {service.name} is a standby, and a restored copy will be one"
            )
        return _HotReading(self._runtime, source, server)

    def _service(self) -> Service | None:
        """The container that the server runs in; None if nothing that could write runs."""
        alive = [user for user in self._users if user.alive and user.writes(self._volume)]
        servers = [user for user in alive if recognises(user, self._volume)] or alive
        if len(servers) > 1:
            names = ", ".join(server.name for server in servers)
            raise SourceError(
                f"{self._volume} is used by several containers, and it can't be told which is the server: {names}",
                hint="choose `consistency: stop` or `pause`",
            )
        return servers[0] if servers else None


def _not_by_itself(server: Server) -> str | None:
    """Why the data directory alone would not be all of the cluster, or would not be found by the server again."""
    if server.facts.tablespaces:
        return f"the cluster has tablespaces ({', '.join(server.facts.tablespaces)})"
    for mount in server.place.service.mounts:
        below = inside(mount.destination, server.place.directory)
        if below not in {None, "."}:
            return f"{below} of the data directory is a mount of its own"
    return None


class _HotReading:
    """One pass: the volume's root and what is beside the data directory, then the server's own copy."""

    def __init__(self, runtime: Runtime, source: Source, server: Server) -> None:
        self._runtime = runtime
        self._source = source
        self._server = server
        self._copy: Copy | None = None
        self._moment: datetime | None = None

    def next(self, last: TarReport | None) -> TarStream | None:
        """See Reading."""
        return None if last is not None else Splice(self._parts())

    def _parts(self) -> Iterator[Part]:
        engine, excluded = self._runtime.engine, self._source.spec.exclude
        beside = (*excluded, f"{literal(self._server.place.prefix)}/*") if self._server.place.prefix else ("*",)
        yield Part(engine.tar_out(self._source.volume, beside))
        self._copy = start_copy(engine.services, self._server)
        yield Part(self._copy, self._edit(leaving_out(excluded)))

    def _edit(self, exclude: Edit) -> Edit:
        """Where a file of the data directory is in the volume. Notes when the copy is about to end."""
        prefix = self._server.place.prefix

        def edit(path: str) -> str | None:
            if path == _LAST_BEFORE_THE_END and self._moment is None:
                # Sent when all else has been, before the server ends the copy: a transaction committed by now is in it.
                self._moment = self._runtime.clock.now()
            return exclude(f"{prefix}/{path}" if prefix else path)

        return edit

    def outcome(self) -> Outcome:
        """See Reading."""
        damage = self._copy.damage if self._copy else ()
        return Outcome("postgres", self._moment, trouble=damage)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Nothing is held: the slot lives in the helper."""


class _ColdReading:
    """The files as they are, of a server that does not run."""

    def __init__(self, runtime: Runtime, source: Source) -> None:
        self._runtime = runtime
        self._source = source
        self._begun: datetime | None = None

    def next(self, last: TarReport | None) -> TarStream | None:
        """See Reading."""
        if last is not None:
            return None
        self._begun = self._runtime.clock.now()
        return self._runtime.engine.tar_out(self._source.volume, self._source.spec.exclude)

    def outcome(self) -> Outcome:
        """See Reading. SourceError if a container was started meanwhile."""
        volume = self._source.volume
        started = [
            user.name for user in self._runtime.engine.services.users(volume) if user.alive and user.writes(volume)
        ]
        if started:
            raise SourceError(f"{', '.join(started)} was started while the files of {volume} were read")
        return Outcome("postgres: not running", self._begun)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Nothing is held."""
