"""`backupd verify`."""

from __future__ import annotations

import re
from random import SystemRandom
from typing import Annotated

import typer

from backupd.cli import words
from backupd.cli.options import Session, command
from backupd.errors import IntegrityError, UsageError
from backupd.repository import Repository
from backupd.strays import damaged_strays
from backupd.verify import Verifier


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, "verify")
    def verify(
        session: Session,
        id_: Annotated[str | None, typer.Argument(metavar="[ID]", help="Only this snapshot, else all.")] = None,
        read_data: Annotated[
            str | None,
            typer.Option(
                "--read-data",
                metavar="[=PERCENT]",
                help="Fetch, decompress and hash every chunk too, or this share of them, drawn at random.",
            ),
        ] = None,
    ) -> None:
        """Check that the store still holds what its snapshots need.

        Without --read-data: objects and sizes, and every index and file list. Exit code 13 if anything is damaged.
        """
        fraction = _fraction(read_data)
        repository = session.repository()
        manifests, damaged = ([repository.resolve(id_)], []) if id_ else repository.snapshots()
        output = session.output
        verifier = Verifier(repository, output.progress, fraction, SystemRandom())
        findings = list(verifier.verify(manifests))
        if fraction and not id_:
            damaged += damaged_strays(repository)
        problems = [str(damage) for damage in damaged]
        problems += [
            f"snapshot {finding.snapshot[:8]}, {finding.volume}: {finding.problem}"
            for finding in findings
            if finding.problem is not None
        ]
        output.document(
            {
                "store": repository.store.name,
                "snapshots": len(manifests),
                "archives": findings,
                "problems": problems,
            }
        )
        for problem in problems:
            output.line(problem, style="red")
        read = words.size(sum(finding.read for finding in findings))
        output.line(
            f"{words.count(len(manifests), 'snapshot')} in store {repository.store.name}:"
            f" {words.count(len(findings), 'archive')} checked, {read} of data read"
        )
        if problems:
            raise IntegrityError(f"{words.count(len(problems), 'problem')} found", hint=_hint(repository))


def _hint(repository: Repository) -> str:
    return f"another store than {repository.store.name} may hold good copies: `backupd verify --store NAME`"


def _fraction(percent: str | None) -> float:
    if percent is None:
        return 0.0
    match = re.fullmatch(r"(\d+(?:\.\d+)?)%?", percent)
    if match is None or not 0 < float(match[1]) <= 100:
        raise UsageError(f"--read-data={percent} is not a percentage", hint="such as --read-data=10%")
    return float(match[1]) / 100
