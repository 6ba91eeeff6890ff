"""What is asked of a server, as whom, and what is made of its answers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from backupd.consistency.postgres.logins import Login
from backupd.consistency.postgres.server import Place, find_place, find_server
from backupd.errors import SourceError
from backupd.model import Volume, VolumeSpec
from backupd.services import CommandResult, MountPoint, NoServices, Service

VOLUME = Volume(name="db", kind="volume", source="shop_db")
FACTS = {
    "version": 150018,
    "in_recovery": False,
    "wal_level": "replica",
    "wal_senders": 10,
    "slots": 10,
    "may_copy": True,
    "checksums": True,
    "tablespaces": [],
}
DIRECTORY = "/v/data"


def service(**environment: str) -> Service:
    mounts = (MountPoint("volume", "shop_db", "/v", True),)
    return Service(
        "1", "db-1", "postgres:15", "sha256:1", "running", mounts, environment={"PGDATA": DIRECTORY, **environment}
    )


@dataclass
class FakeServer(NoServices):
    """Users by name with the password that each needs (None: any will do)."""

    users_known: dict[str, str | None] = field(default_factory=lambda: {"postgres": None})
    databases: tuple[str, ...] = ("postgres",)
    facts: dict[str, object] = field(default_factory=lambda: dict(FACTS))
    process: str = "17\n/v/data\n1700000000\n5432\n/run\n*\n  123\nready\n"
    replication_needs_password: bool = False
    files: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, str, str, bool]] = field(default_factory=list)
    hosts: set[tuple[str, str]] = field(default_factory=set)
    as_users: set[str | None] = field(default_factory=set)

    def run(
        self,
        service: Service,
        command: Sequence[str],
        *,
        user: str | None = None,
        environment: Mapping[str, str] | None = None,
        timeout_seconds: float = 60,
    ) -> CommandResult:
        if command[0] == "cat":
            return CommandResult(0, self.files[command[1]], "") if user == "0" else CommandResult(1, "", "denied")
        script, arguments = command[2], command[4:]
        self.as_users.add(user)
        if "stat -c" in script:
            return CommandResult(0, "".join(f"70:71 {path}\n" for path in arguments if path.startswith(DIRECTORY)), "")
        if "PG_VERSION" in script:
            return CommandResult(0, "15\n" + self.process, "")
        return self._psql(
            dict(zip(arguments[::2], arguments[1::2], strict=True)), (environment or {}).get("BACKUPD_PASSWORD")
        )

    def _psql(self, options: dict[str, str], password: str | None) -> CommandResult:
        user, database = options["-U"], options["-d"]
        self.asked.append((user, database, options["-c"].split()[0], password is not None))
        self.hosts.add((options["-h"], options["-p"]))
        if user not in self.users_known:
            return CommandResult(2, "", f'FATAL:  role "{user}" does not exist')
        wanted = self.users_known[user]
        if database == "replication=true" and self.replication_needs_password:
            wanted = "pw"
        if wanted is not None and password is None:
            return CommandResult(2, "", "fe_sendauth: no password supplied")
        if wanted is not None and password != wanted:
            return CommandResult(2, "", f'FATAL:  password authentication failed for user "{user}"')
        if database not in {*self.databases, "replication=true"}:
            return CommandResult(2, "", f'FATAL:  database "{database}" does not exist')
        return CommandResult(0, json.dumps(self.facts), "")


def place(**environment: str) -> Place:
    return Place(service(**environment), DIRECTORY, "data", "70:71")


def test_where_the_data_are_and_whose() -> None:
    services = FakeServer()
    assert find_place(services, service(), VOLUME) == place()
    assert services.as_users == {None, "70:71"}
    with pytest.raises(SourceError, match=r"no PostgreSQL data directory in shop_db \(looked at /v/other\)"):
        find_place(services, service(PGDATA="/v/other"), VOLUME)


def test_a_server_that_trusts_is_told_no_password() -> None:
    services = FakeServer()
    server = find_server(services, place(POSTGRES_PASSWORD="pw"), VolumeSpec("db", password="spec"))
    assert server.login == Login("postgres")
    assert (server.host, server.port, server.database) == ("127.0.0.1", 5432, "postgres")
    assert services.asked == [
        ("postgres", "postgres", "select", False),
        ("postgres", "replication=true", "IDENTIFY_SYSTEM", False),
    ]


@pytest.mark.parametrize(
    ("environment", "files", "user", "password"),
    [
        ({"POSTGRES_PASSWORD": "pw"}, {}, "postgres", "pw"),
        ({"POSTGRES_USER": "app", "POSTGRES_PASSWORD": "pw"}, {}, "app", "pw"),
        ({"POSTGRES_USER": "app", "POSTGRES_PASSWORD_FILE": "/s"}, {"/s": "pw\n"}, "app", "pw"),
        (
            {"POSTGRESQL_USERNAME": "app", "POSTGRESQL_PASSWORD": "x", "POSTGRESQL_POSTGRES_PASSWORD": "pw"},
            {},
            "postgres",
            "pw",
        ),
        (
            {"POSTGRESQL_PASSWORD": "no", "POSTGRESQL_REPLICATION_USER": "r", "POSTGRESQL_REPLICATION_PASSWORD": "pw"},
            {},
            "r",
            "pw",
        ),
    ],
)
def test_logins_of_the_container(environment: dict[str, str], files: dict[str, str], user: str, password: str) -> None:
    services = FakeServer(users_known={user: password}, files=files)
    assert find_server(services, place(**environment), VolumeSpec("db")).login == Login(user, password)


def test_the_configuration_goes_first() -> None:
    services = FakeServer(users_known={"copier": "c", "postgres": "p"})
    where = place(POSTGRES_PASSWORD="p")
    assert find_server(services, where, VolumeSpec("db", user="copier", password="c")).login == Login("copier", "c")
    assert find_server(services, where, VolumeSpec("db", password="p")).login == Login("postgres", "p")
    assert find_server(services, where, VolumeSpec("db", user="postgres")).login == Login("postgres", "p")
    with pytest.raises(SourceError, match="refuses the password of user copier") as caught:
        find_server(services, where, VolumeSpec("db", user="copier", password="xyzzy"))
    assert "xyzzy" not in f"{caught.value} {caught.value.hint}"
    assert "xyzzy" not in repr(Login("copier", "xyzzy"))


def test_a_password_for_replication_only() -> None:
    services = FakeServer(replication_needs_password=True)
    assert find_server(services, place(POSTGRES_PASSWORD="pw"), VolumeSpec("db")).login == Login("postgres", "pw")


def test_the_first_trouble_is_told() -> None:
    services = FakeServer(users_known={})
    with pytest.raises(SourceError, match="db-1: the server has no user app"):
        find_server(services, place(POSTGRES_USER="app"), VolumeSpec("db"))
    assert len(services.asked) == 1


def test_another_database() -> None:
    services = FakeServer(users_known={"app": None}, databases=("shop",))
    server = find_server(services, place(POSTGRES_USER="app", POSTGRES_DB="shop"), VolumeSpec("db"))
    assert server.database == "shop"
    with pytest.raises(SourceError, match="there is no database postgres"):
        find_server(FakeServer(databases=()), place(), VolumeSpec("db"))


@pytest.mark.parametrize(
    ("listens", "host"),
    [("*", "127.0.0.1"), ("localhost", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("10.0.0.5", "10.0.0.5")],
)
def test_where_it_listens(listens: str, host: str) -> None:
    services = FakeServer(process=f"17\n/v/data\n1700000000\n6543\n/run\n{listens}\n")
    find_server(services, place(), VolumeSpec("db"))
    assert services.hosts == {(host, "6543")}


@pytest.mark.parametrize(
    ("changes", "process", "message"),
    [
        ({"wal_level": "minimal"}, None, "wal_level = minimal"),
        ({"wal_senders": 0}, None, "max_wal_senders = 0"),
        ({"slots": 0}, None, "max_replication_slots = 0"),
        ({"version": 120022}, None, "version 12 is too old"),
        ({"may_copy": False}, None, "user postgres has no right to copy"),
        ({}, "", "PostgreSQL does not run in it"),
        ({}, "17\n/v/data\n1700000000\n5432\n/run\n\n", "listens on no address"),
    ],
)
def test_what_is_in_the_way(changes: dict[str, object], process: str | None, message: str) -> None:
    services = FakeServer(facts={**FACTS, **changes})
    if process is not None:
        services.process = process
    with pytest.raises(SourceError, match=message) as caught:
        find_server(services, place(), VolumeSpec("db"))
    assert caught.value.hint
