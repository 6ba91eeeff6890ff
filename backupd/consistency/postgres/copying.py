"""The copy itself: `pg_basebackup` in a helper beside the server, under a replication slot of its own.

The slot keeps the server from throwing away WAL that the copy needs. It is temporary: it lives as long as the psql
session that made it, out of which the copy is started, and is gone with it, whatever happens.
"""

from __future__ import annotations

import uuid
from types import TracebackType
from typing import Self

from backupd.consistency.postgres.server import Server
from backupd.consistency.postgres.trouble import explained
from backupd.errors import SourceError
from backupd.model import TarReport
from backupd.services import Services, TarStream

# Stdout is the tar. The manifest that could go with it would be a file of a stranger in the data directory, and what it
# is good for is done by the hashes of chunks. psql does not pass on how a command ended, so that is written to a file.
# Pages whose checksum is wrong make pg_basebackup fail at its end, when all of the tar has been written: the copy is
# whole, and as good as the original is, so it is kept, and the complaints that came on stderr make it known.
_COPY = r"""
export host=$1 port=$2 user=$3 PGPASSFILE=/nonexistent PGCONNECT_TIMEOUT=10
if [ "$6" = password ]; then IFS= read -r PGPASSWORD; export PGPASSWORD; fi
exec 4>&1 5>&2
export copy='
    {
        pg_basebackup -h "$host" -p "$port" -U "$user" -w -D - -F tar -X fetch -c fast -l backupd --no-manifest
        echo $? >/tmp/code
    } 2>&1 >&4 | sed "/checksum error occurred/w /tmp/damaged" >&5
'
psql -X -q -w -v ON_ERROR_STOP=1 -v slot="$5" -h "$host" -p "$port" -U "$user" -d "$4" -o /dev/null <<'END' >/dev/null
select set_config(name, '0', false) from pg_settings where name in ('statement_timeout', 'idle_session_timeout');
select pg_create_physical_replication_slot(:'slot', true, true);
\! eval "$copy"
END
session=$?
[ "$session" -eq 0 ] || exit "$session"
read -r code </tmp/code || exit 1
if [ "$code" -eq 1 ] && [ -s /tmp/damaged ]; then exit 0; fi
exit "$code"
"""
_DAMAGE = "checksum verification failed"


def start_copy(services: Services, server: Server) -> Copy:
    """A stream of the data directory's files, with the WAL that they need, in the order in which they lie there."""
    login = server.login
    command = [
        *("sh", "-c", _COPY, "sh", server.host, str(server.port), login.user, server.database),
        f"backupd_{uuid.uuid4().hex}",
        "password" if login.password else "",
    ]
    stdin = f"{login.password}\n".encode() if login.password else b""
    return Copy(services.tar_from(server.place.service, command, user=server.place.owner, stdin=stdin), server)


class Copy:
    """A TarStream. `damage` names pages that are not what the server once wrote, known at the end."""

    def __init__(self, stream: TarStream, server: Server) -> None:
        self._stream = stream
        self._server = server
        self.damage: tuple[str, ...] = ()

    def readinto(self, buffer: memoryview) -> int:
        """See TarStream."""
        return self._stream.readinto(buffer)

    def finish(self) -> TarReport:
        """See TarStream. The error says what to do about it, where that is known."""
        try:
            report = self._stream.finish()
        except SourceError as exc:
            if exc.hint:
                raise
            subject = f"copying PostgreSQL in container {self._server.place.service.name}"
            raise explained(subject, str(exc), self._server.login.user) from exc
        self.damage = tuple(warning for warning in report.warnings if _DAMAGE in warning)
        return report

    def __enter__(self) -> Self:
        self._stream.__enter__()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._stream.__exit__(exc_type, exc, tb)
