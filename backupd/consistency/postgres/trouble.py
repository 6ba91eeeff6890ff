"""What PostgreSQL and its tools say when something is in the way, in words that tell what to do about it."""

from __future__ import annotations

import re

from msgspec import Struct

from backupd.errors import SourceError

_CREDENTIALS = "set `user` and `password` of the volume in the configuration"
_INSTEAD = "or choose `consistency: stop`"


class _Trouble(Struct, frozen=True):
    pattern: str
    message: str
    hint: str


# In this order: the first that is found counts. {user} and {detail} are filled in.
_TROUBLES = (
    _Trouble(
        r"no pg_hba\.conf entry for replication|pg_hba\.conf rejects replication",
        "pg_hba.conf does not let user {user} connect from 127.0.0.1 for replication",
        "add a line `host replication {user} 127.0.0.1/32 scram-sha-256` to pg_hba.conf and reload it, " + _INSTEAD,
    ),
    _Trouble(
        r"no pg_hba\.conf entry|pg_hba\.conf rejects",
        "pg_hba.conf does not let user {user} connect from 127.0.0.1",
        "add a line `host all {user} 127.0.0.1/32 scram-sha-256` to pg_hba.conf and reload it, " + _INSTEAD,
    ),
    _Trouble(r"password authentication failed", "the server refuses the password of user {user}", _CREDENTIALS),
    _Trouble(r"no password supplied", "the server wants a password of user {user}, and none is known", _CREDENTIALS),
    _Trouble(r"role \".*\" does not exist", "the server has no user {user}", _CREDENTIALS),
    _Trouble(
        r"must be superuser or replication role|permission denied to start WAL sender"
        r"|permission denied to use replication slots",
        "user {user} has no right to copy the cluster",
        "`alter role {user} replication` gives it; or set another `user` of the volume",
    ),
    _Trouble(
        r"exceeds max_wal_senders",
        "the server has no free WAL sender: a copy takes one",
        "raise max_wal_senders in postgresql.conf and restart the server, " + _INSTEAD,
    ),
    _Trouble(
        r"all replication slots are in use|max_replication_slots",
        "the server has no free replication slot: a copy takes one",
        "raise max_replication_slots in postgresql.conf and restart the server, " + _INSTEAD,
    ),
    _Trouble(
        r"WAL generated with \W?full_page_writes",
        "the server is a standby, and its primary does not write full pages",
        "set full_page_writes = on on the primary, or back up the primary",
    ),
    _Trouble(
        r"standby was promoted during online backup",
        "the standby was promoted while it was being copied",
        "back it up again",
    ),
    _Trouble(
        r"has already been removed|could not find any WAL file|could not find WAL file|can no longer be accessed",
        "the server threw away WAL that the copy needs while it was being made",
        "raise max_slot_wal_keep_size in postgresql.conf, or back up when less is written",
    ),
    _Trouble(
        r"the database system is (?:starting up|shutting down|not (?:yet )?accepting connections|in recovery mode)",
        "the server does not answer yet: {detail}",
        "back it up again once it runs",
    ),
    _Trouble(
        r"Connection refused|could not connect to server|No such file or directory",
        "the server does not answer: {detail}",
        "does PostgreSQL run in the container, and does it listen on 127.0.0.1 (`listen_addresses`)?",
    ),
)
_PREFIX = re.compile(r"^(?:psql|pg_basebackup): (?:error: )?|^(?:psql:)?<stdin>:\d+: |^(?:ERROR|FATAL): +")


def explained(subject: str, said: str, user: str) -> SourceError:
    """An error, beginning with `subject`, for what a tool said on stderr."""
    detail = first_line(said)
    for trouble in _TROUBLES:
        if re.search(trouble.pattern, said):
            message = trouble.message.format(user=user, detail=detail)
            return SourceError(f"{subject}: {message}", hint=trouble.hint.format(user=user))
    return SourceError(f"{subject}: {detail}")


def first_line(said: str) -> str:
    """The line that says most: the first that is an error, else the first."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    line = next((line for line in lines if re.search(r"FATAL|ERROR|error:", line)), lines[0] if lines else "")
    previous = None
    while previous != line:
        previous, line = line, _PREFIX.sub("", line)
    return line or "it did not say why"
