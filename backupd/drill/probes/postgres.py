"""PostgreSQL: it accepts connections, every database answers, pg_amcheck finds nothing, and the rows are counted."""

from __future__ import annotations

import re
from collections.abc import Mapping

from backupd.drill.probes.base import NOT_FOUND, Results, Subject, image_name, said
from backupd.errors import SourceError
from backupd.sandbox import ExtraArguments
from backupd.services import CommandResult, Service

_IMAGES = re.compile(r"postgres(ql)?(-\d+)?|postgis|timescaledb(-ha)?|pgvector|pgvecto-rs|supabase-postgres")
_VARIABLES = ("PG_MAJOR", "PGDATA")
_COUNTED_TABLES = 5

# Said by the server of pages and rows that are not as they were written.
_DAMAGE = re.compile(
    r"(?i)invalid page|could not read block|corrupt|unexpected zero page|missing chunk|checksum|compressed .*data|"
    r"could not access status of transaction|invalid memory alloc|could not open file"
)

_DATABASES = (
    "select datname from pg_database where datallowconn and not datistemplate"
    " and datname !~ '[[:cntrl:]]' order by datname"
)
_TABLES = """
select format('%I.%I', n.nspname, c.relname)
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'm') and c.relpersistence = 'p' and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
  and n.nspname || c.relname !~ '[[:cntrl:]]'
order by pg_table_size(c.oid) desc, 1
"""
_AMCHECK = (
    "command -v pg_amcheck >/dev/null || exit 127;"
    ' exec pg_amcheck --username="$1" --maintenance-db=postgres --all --install-missing --jobs=2 --no-password'
)
_CORRUPTION_FOUND = 2


class PostgresProbe:
    """See Probe. Nothing archives, vacuums or waits for disks in a copy: that would prove nothing and cost time."""

    name = "postgres"
    extra: ExtraArguments | None = ExtraArguments(
        "postgres", ("-c", "archive_mode=off", "-c", "fsync=off", "-c", "autovacuum=off")
    )
    files: re.Pattern[str] | None = None

    def fits(self, service: Service) -> bool:
        """See Probe."""
        if _IMAGES.fullmatch(image_name(service)):
            return True
        return all(name in service.environment for name in _VARIABLES)

    def run(self, subject: Subject, results: Results) -> None:
        """See Probe."""
        server = _Server(subject)
        names = server.rows("postgres", _DATABASES)
        results.proven(f"accepts connections ({server.rows('postgres', 'show server_version')[0]})")
        answering = [name for name in names if _answers(server, name, results)]
        if answering:
            results.proven(f"{len(answering)} of {len(names)} databases answer: {', '.join(answering)}")
        _amcheck(server, results)
        for name in answering:
            _count(server, name, subject.known, results)


def _answers(server: _Server, database: str, results: Results) -> bool:
    result = server.query(database, "select count(*) from pg_class")
    if result.exit_code != 0:
        text = said(result, server.service)
        results.failed(f"database {database} does not answer: {text}", damage=bool(_DAMAGE.search(text)))
    return result.exit_code == 0


def _amcheck(server: _Server, results: Results) -> None:
    result = server.run(["sh", "-c", _AMCHECK, "sh", server.user])
    if result.exit_code == 0:
        results.proven("pg_amcheck: every table and every B-tree index is right")
    elif result.exit_code == NOT_FOUND:
        results.skipped("the image has no pg_amcheck (PostgreSQL 14 and later have): pages were not checked")
    elif result.exit_code == _CORRUPTION_FOUND:
        results.failed(f"pg_amcheck: {_relevant(result, server.service)}", damage=True)
    else:
        results.warning(f"pg_amcheck could not check: {said(result, server.service)}")


def _relevant(result: CommandResult, service: Service) -> str:
    """Its complaint: the relation is named in one line, what is wrong with it in the next."""
    return said(CommandResult(result.exit_code, "", " ".join(result.stdout.split()[:60])), service)


def _count(server: _Server, database: str, known: Mapping[str, int], results: Results) -> None:
    """Count the rows of the largest tables, and of those that were counted in the drill before."""
    tables = server.rows(database, _TABLES)
    results.counts[f"{database}: tables"] = len(tables)
    wanted = [
        table for number, table in enumerate(tables) if number < _COUNTED_TABLES or f"{database}: {table}" in known
    ]
    counted = []
    for table in wanted:
        result = server.query(database, f"select count(*) from only {table}")  # noqa: S608  (quoted by the server)
        if result.exit_code == 0:
            results.counts[f"{database}: {table}"] = int(result.stdout)
            counted.append(f"{table} {int(result.stdout):,}")
        else:
            text = said(result, server.service)
            results.failed(f"{database}: {table} cannot be read: {text}", damage=bool(_DAMAGE.search(text)))
    if counted:
        results.proven(f"rows in {database}: {', '.join(counted)}")


class _Server:
    """psql in the copy, as the superuser that its image made."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self.service = subject.service
        self.user = subject.spec.user or subject.variable("POSTGRES_USER") or "postgres"
        password = subject.spec.password or subject.variable("POSTGRES_PASSWORD")
        self._environment = {"PGPASSWORD": password} if password else {}

    def run(self, command: list[str]) -> CommandResult:
        return self._subject.run(command, self._environment)

    def query(self, database: str, sql: str) -> CommandResult:
        milliseconds = max(1, int(self._subject.seconds_left * 1000))
        return self.run(
            [
                *("psql", "--no-psqlrc", "--no-password", "-q", "-At", "-v", "ON_ERROR_STOP=1", "-U", self.user),
                *("-d", f"dbname={_quoted(database)}", "-c", f"set statement_timeout = {milliseconds}", "-c", sql),
            ]
        )

    def rows(self, database: str, sql: str) -> list[str]:
        """SourceError if the server refuses."""
        result = self.query(database, sql)
        if result.exit_code != 0:
            raise SourceError(f"it answers: {said(result, self.service)}")
        return result.stdout.splitlines()


def _quoted(name: str) -> str:
    """A value of a connection string."""
    escaped = name.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
