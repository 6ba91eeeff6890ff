"""The server that has its data in a volume: found among the volume's containers, and asked about itself.

All questions are asked by commands in its own container, over TCP as the copy will be: what answers here answers there.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from backupd.consistency.postgres.logins import SUPERUSER, Login, logins
from backupd.consistency.postgres.recognise import data_directories, inside
from backupd.consistency.postgres.trouble import explained
from backupd.errors import SourceError
from backupd.model import Volume, VolumeSpec
from backupd.services import CommandResult, Service, Services

_LOCAL = "127.0.0.1"
_OLDEST = 130000
_LISTENS_LOCALLY = frozenset({"*", "localhost", "0.0.0.0", _LOCAL})  # noqa: S104  (where it listens, not we)

_PLACE = """
for directory; do
    if [ -d "$directory" ]; then stat -c '%u:%g %n' "$directory"; fi
done
"""
_PROCESS = """
cd "$1" && read -r version <PG_VERSION && echo "$version" || exit 1
[ ! -e postmaster.pid ] || cat postmaster.pid
"""
# Whatever the container's environment holds for its own psql must not make here what would not work beside it.
_ASK = """
unset PGPASSWORD PGSERVICE PGHOSTADDR PGOPTIONS PGDATABASE
export PGPASSFILE=/nonexistent LC_ALL=C PGCONNECT_TIMEOUT=10
if [ -n "$BACKUPD_PASSWORD" ]; then export PGPASSWORD="$BACKUPD_PASSWORD"; fi
unset BACKUPD_PASSWORD
exec psql -X -w -q -A -t -v ON_ERROR_STOP=1 "$@"
"""

_FACTS = """
select json_build_object(
    'version', current_setting('server_version_num')::int,
    'in_recovery', pg_is_in_recovery(),
    'wal_level', current_setting('wal_level'),
    'wal_senders', current_setting('max_wal_senders')::int,
    'slots', current_setting('max_replication_slots')::int,
    'may_copy', (select rolsuper or rolreplication from pg_roles where rolname = current_user),
    'checksums', current_setting('data_checksums') = 'on',
    'tablespaces', (select coalesce(json_agg(spcname order by spcname), '[]') from pg_tablespace
                    where spcname not in ('pg_default', 'pg_global')))
"""


class Facts(Struct, frozen=True):
    """What a server says of itself. `tablespaces` are those besides the two that every cluster has."""

    version: int
    in_recovery: bool
    wal_level: str
    wal_senders: int
    slots: int
    may_copy: bool
    checksums: bool
    tablespaces: list[str]


_FACTS_DECODER = msgspec.json.Decoder(Facts)


class Place(Struct, frozen=True):
    """A data directory: `directory` in the container, `prefix` in the volume (empty: its root), `owner` `uid:gid`."""

    service: Service
    directory: str
    prefix: str
    owner: str


class Server(Struct, frozen=True):
    """A server that answers, and lets `login` copy it."""

    place: Place
    host: str
    port: int
    database: str
    login: Login
    facts: Facts


def find_place(services: Services, service: Service, volume: Volume) -> Place:
    """Where the server's data are; SourceError if the container has none in the volume."""
    mount = service.mount_of(volume)
    candidates = data_directories(service, volume)
    said = services.run(service, ["sh", "-c", _PLACE, "sh", *candidates])
    for line in said.stdout.splitlines():
        owner, _, directory = line.partition(" ")
        if services.run(service, ["sh", "-c", _PROCESS, "sh", directory], user=owner).exit_code == 0 and mount:
            prefix = inside(directory, mount.destination) or "."
            return Place(service, directory, "" if prefix == "." else prefix, owner)
    raise SourceError(
        f"container {service.name} has no PostgreSQL data directory in {volume} (looked at {', '.join(candidates)})",
        hint="its environment says where: PGDATA",
    )


def find_server(services: Services, place: Place, spec: VolumeSpec) -> Server:
    """The server that runs on a data directory; SourceError says what is in the way of a copy."""
    host, port = _address(services, place)
    trouble: SourceError | None = None
    for login in logins(services, place.service, spec):
        for database in dict.fromkeys((SUPERUSER, place.service.environment.get("POSTGRES_DB") or login.user)):
            asking = _Asking(services, place, host, port, database)
            try:
                server = asking.server(login)
            except _NoDatabase as exc:
                trouble = trouble or exc
                continue
            except SourceError as exc:
                trouble = trouble or exc
                break
            return server
    assert trouble is not None  # there is a login, and it failed
    raise trouble


class _NoDatabase(SourceError):  # noqa: N818  (reads as what it is)
    """A database that is commonly there is not."""


class _Asking(Struct, frozen=True):
    services: Services
    place: Place
    host: str
    port: int
    database: str

    def server(self, login: Login) -> Server:
        """What the server says. The login's password is kept only if it is asked for."""
        said, told = self._psql(login, self.database, _FACTS)
        if f'database "{self.database}" does not exist' in said.stderr:
            raise _NoDatabase(f"{self._subject}: there is no database {self.database}")
        if said.exit_code != 0:
            raise explained(self._subject, said.stderr, login.user)
        facts = _FACTS_DECODER.decode(said.stdout)
        self._refuse(facts, login)
        # pg_hba.conf has rules of their own for connections for replication.
        said, told_again = self._psql(login, "replication=true", "IDENTIFY_SYSTEM")
        if said.exit_code != 0:
            raise explained(self._subject, said.stderr, login.user)
        password = login.password if told or told_again else None
        return Server(self.place, self.host, self.port, self.database, Login(login.user, password), facts)

    def _refuse(self, facts: Facts, login: Login) -> None:
        if facts.version < _OLDEST:
            raise SourceError(
                f"{self._subject}: version {facts.version // 10000} is too old for a copy while it runs",
                hint=f"from version {_OLDEST // 10000} on it is possible; choose `consistency: stop`",
            )
        if facts.wal_level == "minimal" or facts.wal_senders == 0 or facts.slots == 0:
            setting = "wal_level = replica, max_wal_senders and max_replication_slots above 0"
            said = (
                f"wal_level = {facts.wal_level}, max_wal_senders = {facts.wal_senders},"
                f" max_replication_slots = {facts.slots}"
            )
            raise SourceError(
                f"{self._subject}: its settings rule out a copy while it runs ({said})",
                hint=f"set {setting} in postgresql.conf and restart it, or choose `consistency: stop`",
            )
        if not facts.may_copy:
            raise explained(self._subject, "must be superuser or replication role", login.user)

    def _psql(self, login: Login, database: str, query: str) -> tuple[CommandResult, bool]:
        """How a query ended, and whether the server had to be told the password for it."""
        connection = ["-h", self.host, "-p", str(self.port), "-U", login.user, "-d", database, "-c", query]
        command, user = ["sh", "-c", _ASK, "sh", *connection], self.place.owner
        said = self.services.run(self.place.service, command, user=user)
        if said.exit_code == 0 or "no password supplied" not in said.stderr or not login.password:
            return said, False
        environment = {"BACKUPD_PASSWORD": login.password}
        return self.services.run(self.place.service, command, user=user, environment=environment), True

    @property
    def _subject(self) -> str:
        return f"PostgreSQL in container {self.place.service.name}"


def _address(services: Services, place: Place) -> tuple[str, int]:
    """Host and port, from postmaster.pid: process, directory, start, port, socket directory, first listen address."""
    said = services.run(place.service, ["sh", "-c", _PROCESS, "sh", place.directory], user=place.owner)
    lines = [line.strip() for line in said.stdout.splitlines()[1:]]
    if len(lines) < 6 or not lines[3].isdigit():
        raise SourceError(
            f"container {place.service.name} runs, but PostgreSQL does not run in it",
            hint="start it, or stop the container: its files are copied as they are then",
        )
    listens = lines[5]
    if not listens:
        raise SourceError(
            f"PostgreSQL in container {place.service.name} listens on no address, and is copied over 127.0.0.1",
            hint="set listen_addresses = 'localhost' in postgresql.conf and restart it, or choose `consistency: stop`",
        )
    if listens == "::":
        return "::1", int(lines[3])
    return _LOCAL if listens in _LISTENS_LOCALLY else listens, int(lines[3])
