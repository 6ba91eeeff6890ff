"""What PostgreSQL's tools were seen to say, versions 13 to 18, and what is made of it."""

from __future__ import annotations

import pytest

from backupd.consistency.postgres.trouble import explained, first_line

AT = 'connection to server at "127.0.0.1", port 5432 failed: '
ALTER = "alter role app replication"


@pytest.mark.parametrize(
    ("said", "message", "hint"),
    [
        (
            f'psql: error: {AT}FATAL:  no pg_hba.conf entry for replication connection from host "1.2.3.4", user "app"',
            "for replication",
            "host replication app 127.0.0.1/32",
        ),
        (
            f'psql: error: {AT}FATAL:  no pg_hba.conf entry for host "127.0.0.1", user "app", database "x"',
            "does not let user app connect from 127.0.0.1",
            "host all app 127.0.0.1/32",
        ),
        (f'psql: error: {AT}FATAL:  password authentication failed for user "app"', "refuses", "`user` and `password`"),
        (f"psql: error: {AT}fe_sendauth: no password supplied", "none is known", "`user` and `password`"),
        (f'psql: error: {AT}FATAL:  role "app" does not exist', "has no user app", "`user` and `password`"),
        (f"psql: error: {AT}FATAL:  must be superuser or replication role to start walsender", "no right", ALTER),
        (f"psql: error: {AT}FATAL:  permission denied to start WAL sender\nDETAIL:  Only roles …", "no right", ALTER),
        (
            f"pg_basebackup: error: {AT}FATAL:  number of requested standby connections exceeds max_wal_senders (2)",
            "no free WAL sender",
            "max_wal_senders",
        ),
        ("psql:<stdin>:2: ERROR:  all replication slots are in use", "no free replication", "max_replication_slots"),
        (
            "pg_basebackup: error: could not get end: ERROR:  requested WAL segment 00000003 has already been removed",
            "threw away WAL",
            "max_slot_wal_keep_size",
        ),
        (f"psql: error: {AT}FATAL:  the database system is starting up", "starting up", "once it runs"),
        (f"psql: error: {AT}Connection refused\n\tIs the server running?", "Connection refused", "listen_addresses"),
    ],
)
def test_known_troubles(said: str, message: str, hint: str) -> None:
    error = explained("db", said, "app")
    assert message in str(error)
    assert str(error).startswith("db: ")
    assert "\n" not in str(error)
    assert hint in (error.hint or "")


def test_unknown_troubles_are_told_as_they_are() -> None:
    error = explained("db", "NOTICE: so\npg_basebackup: error: something new\nmore", "app")
    assert str(error) == "db: something new"
    assert error.hint is None
    assert str(explained("db", "", "app")) == "db: it did not say why"
    assert first_line("psql:<stdin>:3: ERROR:  boom") == "boom"
