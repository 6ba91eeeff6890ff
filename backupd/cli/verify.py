"""`backupd verify`."""

from __future__ import annotations

import re
from random import SystemRandom
from typing import Annotated, Any

import typer

from backupd.cli import words
from backupd.cli.options import Session, command
from backupd.cli.standing import standing_facts
from backupd.engine import MountedEngine
from backupd.errors import UsageError
from backupd.jobs.verify import note_verified
from backupd.verify.operation import verify
from backupd.verify.result import StoreVerified, Verified, VerifyRequest


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, "verify")
    def verify_(
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
        repair: Annotated[
            bool,
            typer.Option(
                "--repair",
                help="Replace what is damaged or missing in a store (with --store: in that one) by what another holds.",
            ),
        ] = False,
    ) -> None:
        """Check that every store still holds what its snapshots need, and note the result with each of them.

        Without --read-data: objects and sizes, and every index and file list. Exit code 13 if anything is damaged.
        """
        request = VerifyRequest(id_, None, _fraction(read_data), repair=repair)
        stores = session.stores(tuple(session.settings.stores))
        sources = session.site.other_stores() if repair else []
        with session.recorder().run("verify") as draft:
            verified = verify(stores, request, session.runtime(MountedEngine()), SystemRandom(), sources)
            note_verified(draft, verified)
            _show_all(session, verified)
            verified.require_good()


def _show_all(session: Session, verified: Verified) -> None:
    findings = [finding for one in verified.stores for finding in one.findings]
    session.output.document(
        {
            "stores": [_described(one) for one in verified.stores],
            "archives": findings,
            "problems": verified.problems,
        }
    )
    for one in verified.stores:
        _show(session, one)


def _described(one: StoreVerified) -> dict[str, Any]:
    return {
        "store": one.store,
        "snapshots": one.snapshots,
        "absent": one.absent,
        "archives": one.findings,
        "checks": {id_: standing_facts(standing) for id_, standing in one.standings.items()},
        "problems": one.problems,
        "mended": one.repaired.mended if one.repaired else {},
        "left": one.repaired.left if one.repaired else {},
        "error": str(one.error) if one.error else None,
    }


def _show(session: Session, one: StoreVerified) -> None:
    output = session.output
    if one.absent:
        session.detail(f"store {one.store} does not hold it")
        return
    for problem in one.problems:
        output.line(f"store {one.store}: {problem}", style="red")
    if one.repaired is not None:
        output.line(f"store {one.store}: {words.count(len(one.repaired.mended), 'object')} mended")
        for key, why in one.repaired.left.items():
            output.line(f"store {one.store}: {key} is not mended: {why}", style="red")
    if one.error is not None:
        output.warn(f"store {one.store} was not checked to the end: {one.error}")
        return
    output.line(
        f"{words.count(one.snapshots, 'snapshot')} in store {one.store}:"
        f" {words.count(len(one.findings), 'archive')} checked, {words.size(one.read)} of data read"
    )


def _fraction(percent: str | None) -> float:
    if percent is None:
        return 0.0
    match = re.fullmatch(r"(\d+(?:\.\d+)?)%?", percent)
    if match is None or not 0 < float(match[1]) <= 100:
        raise UsageError(f"--read-data={percent} is not a percentage", hint="such as --read-data=10%")
    return float(match[1]) / 100
