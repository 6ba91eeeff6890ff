"""`backupd keygen` and `backupd trust`."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from backupd.cli import words
from backupd.cli.options import Session, command
from backupd.crypto import new_identity
from backupd.errors import SnapshotNotFound, SourceError, UsageError
from backupd.repository import Repository
from backupd.signingkey import OwnKey
from backupd.trust import Trust


def register(app: typer.Typer) -> None:
    """Add the commands."""
    _register_keygen(app)
    _register_trust(app)


def _register_keygen(app: typer.Typer) -> None:
    """Add `keygen`."""

    @command(app, "keygen")
    def keygen(
        session: Session,
        output: Annotated[
            Path | None, typer.Option("--output", "-o", metavar="FILE", help="To this new file, not standard output.")
        ] = None,
    ) -> None:
        """Make a key pair: the secret key into a file, the public one, for encryption.recipients, printed.

        Whoever loses the secret key loses the snapshots that are encrypted for it alone: keep it elsewhere, twice.
        """
        identity, recipient = new_identity(datetime.now(UTC))
        if output is None:
            session.output.document({"recipient": recipient, "identity": identity})
            session.output.line(identity.rstrip())
            return
        _write_new(output, identity)
        session.output.document({"recipient": recipient, "file": str(output)})
        session.output.line(recipient)
        if not session.output.json and sys.stderr.isatty():
            session.output.warn(f"the secret key is in {output}: keep a copy where a fire here does not reach")


def _write_new(path: Path, identity: str) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(identity)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        raise UsageError(f"{path} exists: a key is never overwritten", hint="give another file") from None
    except OSError as exc:
        raise SourceError(f"cannot write {path}: {exc.strerror}") from exc


def _register_trust(app: typer.Typer) -> None:
    """Add `trust`."""

    @command(app, "trust")
    def trust(
        session: Session,
        accept: Annotated[
            list[str] | None,
            typer.Option(
                "--accept",
                metavar="ID",
                help="Believe this snapshot as it is now, or that it was rightly removed; repeatable.",
            ),
        ] = None,
    ) -> None:
        """Whose snapshots are believed, by store, and the key by which this machine signs its own."""
        state = Path(session.settings.state_dir)
        own = OwnKey(state)().public
        known = session.security.trust
        if known is None:
            raise SourceError(f"cannot read {state}", hint="run as the user who owns it")
        output = session.output
        rows: list[dict[str, Any]] = []
        output.line(f"this machine signs as ed25519:{own}")
        for repository in session.repositories():
            for snapshot in accept or ():
                full = _known_id(repository, known, snapshot)
                known.accept(repository.config.id, full)
                output.line(f"{repository.store.name}: {full[:8]} is accepted")
            rows.append(_described(repository, known))
        output.document({"key": f"ed25519:{own}", "stores": rows})
        for row in rows:
            output.line(f"{row['store']}: {words.count(row['snapshots'], 'snapshot')} known, believed are")
            for signer in row["signers"] or ["whoever signs first"]:
                output.line(f"  {signer}{' (this machine)' if signer == f'ed25519:{own}' else ''}")
            for problem in row["problems"]:
                output.warn(problem)


def _described(repository: Repository, trust: Trust) -> dict[str, Any]:
    _, damaged = repository.snapshots()
    return {
        "store": repository.store.name,
        "repository": repository.config.id,
        "signers": [f"ed25519:{signer}" for signer in sorted(trust.believed(repository.config.id))],
        "snapshots": len(trust.record(repository.config.id).snapshots),
        "problems": [str(problem) for problem in damaged],
    }


def _known_id(repository: Repository, trust: Trust, prefix: str) -> str:
    known = {*repository.snapshot_ids(), *trust.record(repository.config.id).snapshots}
    matches = sorted(key for key in known if key.startswith(prefix.lower()))
    if len(matches) != 1 or not prefix:
        raise SnapshotNotFound(
            f"{len(matches) or 'no'} snapshots begin with {prefix!r} in store {repository.store.name}",
            hint="give more digits" if matches else "name the store it is about with --store",
        )
    return matches[0]
