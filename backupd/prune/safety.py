"""When prune refuses: it deletes nothing unless what is to stay was looked at and found good."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from backupd.errors import IntegrityError, PruneRefused
from backupd.ports import Progress
from backupd.prune.outline import Outline
from backupd.repository import Archive, Manifest, Repository
from backupd.trust import SnapshotMissing
from backupd.verify.verifier import Finding, Verifier


def refuse_unless_safe(
    outline: Outline, repository: Repository, progress: Progress, *, by_id: bool
) -> Sequence[Finding]:
    """Raise if anything must not be deleted now: docs/decisions/0021-when-prune-refuses.md. Returns what was checked.

    IntegrityError: a manifest cannot be read, so nobody knows what it needs; a snapshot that was
    there is gone; or an object is missing or not of its
    size that a snapshot which stays needs; or the index or file list of a volume's newest snapshot is not what was
    written, or it is known to be damaged. PruneRefused: a snapshot was named that is the newest good one of a volume.

    With `by_id` other snapshots may be damaged: naming those is how one gets rid of them.
    """
    _refuse_the_missing(outline)
    _refuse_the_unreadable(outline)
    verifier = Verifier(repository, progress, 0.0, Random(0))  # noqa: S311  (it draws nothing at fraction 0)
    if by_id:
        _refuse_the_newest_good(outline, verifier)
        return ()
    for manifest in outline.kept:
        for archive in manifest.archives:
            if problem := _missing(outline, archive):
                raise _damaged(outline, manifest, archive.volume, problem)
    if outline.nothing_goes:
        return ()
    newest = {archive.volume: manifest for manifest in reversed(outline.kept) for archive in manifest.archives}
    for volume, manifest in newest.items():
        if check := outline.standings.get(manifest.id).damaged.get(volume):
            raise _damaged(
                outline, manifest, volume, f"found by a check of {check.how} at {check.time:%Y-%m-%d %H:%M} UTC"
            )
    findings = list(verifier.verify({manifest.id: manifest for manifest in newest.values()}.values()))
    for finding in findings:
        if finding.problem is not None:
            manifest = next(manifest for manifest in outline.kept if manifest.id == finding.snapshot)
            raise _damaged(outline, manifest, finding.volume, finding.problem)
    return findings


def _refuse_the_missing(outline: Outline) -> None:
    """Somebody has taken it away. What it needed would pass for garbage, and older ones for the newest."""
    gone = [problem for problem in outline.damage if isinstance(problem, SnapshotMissing)]
    if gone and not outline.nothing_goes:
        raise SnapshotMissing(f"nothing is pruned: {gone[0]}", hint=gone[0].hint)


def _refuse_the_unreadable(outline: Outline) -> None:
    if not outline.unreadable - outline.dropped:
        return
    worst = next(problem for problem in outline.damage if not isinstance(problem, SnapshotMissing))
    ids = " ".join(sorted(outline.unreadable))
    hint = worst.hint
    if isinstance(worst, IntegrityError):
        hint = f"restore the manifest from a copy of the store, or give up what it held: `backupd prune {ids}`"
    raise type(worst)(f"nothing is pruned: {worst}", hint=hint)


def _damaged(outline: Outline, manifest: Manifest, volume: str, problem: str) -> IntegrityError:
    return IntegrityError(
        f"store {outline.store}: nothing is pruned, as snapshot {manifest.short_id} ({volume}), which is to stay,"
        f" is damaged: {problem}",
        hint="`backupd verify --repair` mends it from another store; where none has it whole, `backupd backup` takes a"
        f" sound one and `backupd prune {manifest.short_id}` gives this one up",
    )


def _missing(outline: Outline, archive: Archive) -> str | None:
    for ref in archive.objects:
        size = outline.sizes.get(ref.key)
        if size is None:
            return f"{ref.key} is missing"
        if size != ref.size:
            return f"{ref.key} has {size} bytes instead of {ref.size}"
    return None


def _refuse_the_newest_good(outline: Outline, verifier: Verifier) -> None:
    going = {manifest.id for manifest in outline.removed}
    for volume in sorted({volume for manifest in outline.removed for volume in manifest.volumes}):
        for manifest in (verdict.snapshot for verdict in outline.verdicts if volume in verdict.snapshot.volumes):
            if not _is_good(outline, manifest, volume, verifier):
                continue
            if manifest.id in going:
                raise PruneRefused(
                    f"store {outline.store}: snapshot {manifest.short_id} is the newest good one of volume {volume}",
                    hint="take another one first: `backupd backup`",
                )
            break


def _is_good(outline: Outline, manifest: Manifest, volume: str, verifier: Verifier) -> bool:
    archive = manifest.archive(volume)
    if archive is None or _missing(outline, archive) or volume in outline.standings.get(manifest.id).damaged:
        return False
    return all(finding.problem is None for finding in verifier.verify([manifest]) if finding.volume == volume)
