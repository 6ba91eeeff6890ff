"""`backupd prune`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Annotated, Any

import typer

from backupd.cli import words
from backupd.cli.options import Session, command
from backupd.errors import (
    BackupdError,
    IntegrityError,
    Interrupted,
    NoRepository,
    PartialFailure,
    SnapshotNotFound,
    UsageError,
)
from backupd.jobs.prune import note_pruned
from backupd.locking import OldVersions
from backupd.prune.operation import Pruned, prune
from backupd.prune.outline import Outline, PruneRequest, outline
from backupd.prune.rules import Rules, Verdict
from backupd.prune.safety import refuse_unless_safe
from backupd.repository import Repository
from backupd.runs import Draft
from backupd.wiring import prune_rules


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, "prune")
    def prune_(
        session: Session,
        ids: Annotated[
            list[str] | None,
            typer.Argument(metavar="[ID]...", help="Only these snapshots, whatever `keep` says; asks first."),
        ] = None,
        plan: Annotated[str | None, typer.Option("--plan", metavar="P", help="Only snapshots of this plan.")] = None,
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would go and why the rest stays.")] = False,
        yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before removing named snapshots.")] = False,
    ) -> None:
        """Remove the snapshots that `keep` does not want, from every store, and what only they needed.

        The newest good snapshot of every volume always stays. Nothing is removed from a store while the newest
        one of a volume is damaged, or any that is to stay lacks an object (exit code 13), or while another backupd
        writes to it (11).
        """
        if ids and plan:
            raise UsageError("--plan and snapshot ids exclude each other")
        if plan is not None:
            session.settings.plan(plan)
        run = _Run(session, dry_run=dry_run)
        repositories = run.repositories()
        if ids:
            requests = _named(session, repositories, ids)
            if not dry_run and not yes:
                _confirm(session, requests)
        else:
            requests = [(found, PruneRequest(_rules(session, found), plan)) for found in repositories]
        with nullcontext() if dry_run else session.recorder().run("prune", plan) as draft:
            for repository, request in requests:
                run.prune(repository, request, draft)
            run.finish()


def _rules(session: Session, repository: Repository) -> Rules:
    return prune_rules(session.settings, repository.store.name)


_Requests = list[tuple[Repository, PruneRequest]]


def _named(session: Session, repositories: Sequence[Repository], names: Sequence[str]) -> _Requests:
    """What is asked of each repository; those that hold none of the named snapshots are left alone."""
    if "latest" in names:
        raise UsageError("`latest` is what prune never removes", hint="name snapshots by their ids")
    held = {repository.store.name: repository.snapshot_ids() for repository in repositories}
    wanted: set[str] = set()
    for name in names:
        matches = {id_ for ids in held.values() for id_ in ids if id_.startswith(name.lower())}
        if len(matches) > 1:
            raise SnapshotNotFound(f"{len(matches)} snapshots begin with {name!r}", hint="give more digits")
        if not name or not matches:
            raise SnapshotNotFound(f"there is no snapshot {name!r}")
        wanted |= matches
    return [
        (found, PruneRequest(_rules(session, found), ids=frozenset(wanted & held[found.store.name])))
        for found in repositories
        if wanted & held[found.store.name]
    ]


def _confirm(session: Session, requests: _Requests) -> None:
    if not session.output.interactive:
        raise UsageError("nobody is there to confirm", hint="pass --yes to remove snapshots without asking")
    for repository, request in requests:
        session.output.line(f"from store {repository.store.name}: {', '.join(sorted(request.ids))}")
    if not typer.confirm("Remove these snapshots for good?", default=False, err=True):
        raise Interrupted("nothing was removed")


class _Run:
    """Store after store; one that fails does not keep the others from being pruned."""

    def __init__(self, session: Session, *, dry_run: bool) -> None:
        self._session = session
        self._runtime = session.runtime()
        self._dry_run = dry_run
        self._documents: list[dict[str, Any]] = []
        self._errors: list[BackupdError] = []
        self._done = 0

    def repositories(self) -> list[Repository]:
        """Those of every store, or of the one that was asked for. A store that was never written to is no error."""
        found = []
        names = [self._session.store_name] if self._session.store_name else list(self._session.settings.stores)
        for name in names:
            try:
                found.append(self._session.site.repository_in(name))
            except NoRepository as exc:
                if len(names) == 1:
                    raise
                self._session.detail(str(exc))
            except BackupdError as exc:
                self._fail(name, exc)
        return found

    def prune(self, repository: Repository, request: PruneRequest, draft: Draft | None) -> None:
        """One store."""
        name = repository.store.name
        document: dict[str, Any] = {"store": name, "dry_run": self._dry_run}

        def seen(found: Outline) -> None:
            document.update(_described(found))
            _show(self._session, found)

        try:
            if self._dry_run:
                now = self._runtime.clock.now()
                found = outline(repository, request, now, now, self._runtime.state)
                seen(found)
                refuse_unless_safe(found, repository, self._runtime.progress, by_id=bool(request.ids))
                self._session.output.line(f"dry run: nothing was changed, {words.size(found.freed)} would be freed")
            else:
                pruned = prune(repository, request, self._runtime, seen)
                document |= _done(pruned)
                if draft is not None:
                    note_pruned(draft, pruned)
                self._session.output.line(_said(pruned))
                self._judge(pruned, request)
        except BackupdError as exc:
            self._fail(name, exc, document)
        else:
            self._done += 1
            self._documents.append(document)

    def _judge(self, pruned: Pruned, request: PruneRequest) -> None:
        if pruned.left:
            raise _refused(pruned)
        if pruned.unlocked is not None:
            raise pruned.unlocked
        if asked := request.ids & set(pruned.outline.held):
            until = max(pruned.outline.held[id_] for id_ in asked)
            raise PartialFailure(
                f"store {pruned.outline.store}: {words.count(len(asked), 'named snapshot')} can't be removed before"
                f" {words.moment(until)}",
                hint="the store locks what it holds until then (object lock)",
            )

    def finish(self) -> None:
        """The document, and an error if a store failed: the only one's own, damage before all else."""
        self._session.output.document({"stores": self._documents})
        if not self._errors:
            return
        worst = next((error for error in self._errors if isinstance(error, IntegrityError)), self._errors[0])
        for error in self._errors:
            if error is not worst:
                self._session.output.warn(str(error))
        if self._done and not isinstance(worst, IntegrityError):
            raise PartialFailure(str(worst), hint=worst.hint)
        raise worst

    def _fail(self, store: str, error: BackupdError, document: dict[str, Any] | None = None) -> None:
        self._errors.append(error)
        self._documents.append({"store": store, **(document or {}), "error": str(error)})


def _refused(pruned: Pruned) -> PartialFailure:
    return PartialFailure(
        f"store {pruned.outline.store} refuses to delete {words.count(len(pruned.left), 'object')}:"
        f" {', '.join(pruned.left[:3])}{', …' if len(pruned.left) > 3 else ''}",
        hint="may these credentials delete, and does the bucket lock its objects?",
    )


def _show(session: Session, found: Outline) -> None:
    output = session.output
    output.line(f"store {found.store}:", style="bold")
    output.table(
        ("ID", "TIME", "PLAN", "VOLUMES", "", "WHY"),
        [
            (
                verdict.snapshot.short_id,
                words.moment(verdict.snapshot.time),
                verdict.snapshot.plan,
                ", ".join(sorted(verdict.snapshot.volumes)),
                "keep" if verdict.keep else "LOCKED" if verdict.snapshot.id in found.held else "REMOVE",
                _why(found, verdict),
            )
            for verdict in found.verdicts
        ],
    )
    for id_ in sorted(found.dropped):
        output.line(f"{id_[:8]}  cannot be read  REMOVE")
    if found.garbage:
        output.line(
            f"of no snapshot: {words.count(len(found.garbage), 'object')}, {words.size(sum(found.garbage.values()))}"
        )


def _why(found: Outline, verdict: Verdict) -> str:
    if until := found.held.get(verdict.snapshot.id):
        return f"no rule wants it, and it can go from {words.moment(until)}: locked until then"
    return "; ".join(verdict.reasons) or "no rule wants it"


def _described(found: Outline) -> dict[str, Any]:
    return {
        "snapshots": [
            {
                "id": verdict.snapshot.id,
                "time": verdict.snapshot.time,
                "plan": verdict.snapshot.plan,
                "reason": verdict.snapshot.reason,
                "volumes": sorted(verdict.snapshot.volumes),
                "keep": verdict.keep,
                "why": verdict.reasons,
                "locked_until": found.held.get(verdict.snapshot.id),
            }
            for verdict in found.verdicts
        ],
        "unreadable": sorted(found.unreadable),
        "objects": {"of_removed": len(found.only_theirs), "of_none": len(found.garbage), "too_young": found.young},
        "bytes": found.freed,
        "locked": found.locked,
    }


def _done(pruned: Pruned) -> dict[str, Any]:
    removed = {"snapshots": pruned.snapshots, "objects": pruned.objects, "bytes": pruned.bytes}
    document = {"removed": removed, "left": pruned.left, "locks_extended": pruned.renewed}
    return document if pruned.old is None else {**document, "old_versions": pruned.old}


def _said(pruned: Pruned) -> str:
    going = set(pruned.snapshots)
    kept = words.count(sum(verdict.snapshot.id not in going for verdict in pruned.outline.verdicts), "snapshot")
    kept = f"{kept} kept"
    if pruned.outline.held:
        kept += f", {len(pruned.outline.held)} of them only until their locks end"
    if pruned.old is not None:
        kept += f"; {_old(pruned.old)}"
    if pruned.outline.nothing_goes:
        return f"nothing to remove, {kept}"
    snapshots = f"{words.count(len(pruned.snapshots), 'snapshot')} and " if pruned.snapshots else ""
    gone = f"{snapshots}{words.count(pruned.objects, 'object')} removed"
    freed = "freed" if pruned.old is None else "hidden"
    return f"{gone}, {words.size(pruned.bytes)} {freed}, {kept}"


def _old(old: OldVersions) -> str:
    """What a bucket with versions still holds."""
    said = f"of deleted objects {words.count(old.count, 'old version')} of {words.size(old.bytes)} stay"
    if old.purged_count:
        said = f"{words.size(old.purged_bytes)} freed for good, {said}"
    ends = [until for _, until in old.locked if until is not None]
    return said + (f", locked until {words.moment(max(ends))} at the latest" if ends else "")
