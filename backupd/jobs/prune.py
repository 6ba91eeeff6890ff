"""A scheduled prune as a whole run."""

from __future__ import annotations

from collections.abc import Sequence

from backupd import words
from backupd.errors import BackupdError, IntegrityError, NoRepository, PartialFailure
from backupd.jobs.site import Site
from backupd.prune.operation import Pruned, prune
from backupd.prune.outline import PruneRequest
from backupd.runs import Draft
from backupd.wiring import prune_rules


def run_prune(site: Site, draft: Draft) -> list[BackupdError]:
    """Prune every store by its rules: what failed. A store that fails does not keep the others from being pruned.

    RunSkipped before any store holds a repository.
    """
    runtime = site.runtime()
    errors: list[BackupdError] = []
    empty: list[NoRepository] = []
    for name in site.settings.stores:
        try:
            repository = site.repository_in(name)
            pruned = prune(repository, PruneRequest(prune_rules(site.settings, name)), runtime)
            note_pruned(draft, pruned)
            if pruned.left:
                raise refused(pruned)
            if pruned.unlocked is not None:
                raise pruned.unlocked
        except NoRepository as exc:
            empty.append(exc)
        except BackupdError as exc:
            errors.append(exc)
            draft.note(f"store {name}: {exc}")
    if len(empty) == len(site.settings.stores):
        raise draft.too_early(str(empty[0])) from empty[0]
    return errors


def note_pruned(draft: Draft, pruned: Pruned) -> None:
    """Keep with the run what was done in a store."""
    name = pruned.outline.store
    draft.set(stores=[*draft.run.stores, name])
    if not pruned.outline.nothing_goes:
        draft.note(
            f"store {name}: {words.count(len(pruned.snapshots), 'snapshot')} and"
            f" {words.count(pruned.objects, 'object')} removed, {words.size(pruned.bytes)}"
            f" {'freed' if pruned.old is None else 'hidden'}"
        )


def refused(pruned: Pruned) -> PartialFailure:
    """What to say of a store that did not delete what it was told to."""
    count = len(pruned.left)
    return PartialFailure(
        f"store {pruned.outline.store} refuses to delete {count:,} object{'' if count == 1 else 's'}:"
        f" {', '.join(pruned.left[:3])}{', …' if count > 3 else ''}",
        hint="may these credentials delete, and does the bucket lock its objects?",
    )


def judge_prune(errors: Sequence[BackupdError], done: int) -> BackupdError | None:
    """What a prune amounts to: the only store's error, damage before all else; in part if `done` stores were pruned."""
    if not errors:
        return None
    worst = next((error for error in errors if isinstance(error, IntegrityError)), errors[0])
    return PartialFailure(str(worst), hint=worst.hint) if done and not isinstance(worst, IntegrityError) else worst
