"""Prune and what checks have found: it refuses, keeps, notes and tidies up."""

from __future__ import annotations

from pathlib import Path

import pytest

from backupd.errors import IntegrityError, PruneRefused
from backupd.repository import Manifest, layout, standing_of
from backupd.verify.recording import Look, keep_findings
from backupd.verify.verifier import Finding
from tests.support.keys import Machine, use
from tests.support.pruning import KEEP, a_day_later, check_all_that_is_listed, request, run_prune, with_history
from tests.support.runtime import Place, stored


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return with_history(tmp_path)


def manifests(place: Place) -> list[Manifest]:
    return place.repository().snapshots()[0]


def found_damaged(place: Place, manifest: Manifest, volume: str = "b") -> None:
    """A check of all data has found a volume of it damaged, though nothing shows in sizes and lists."""
    findings = [
        Finding(manifest.id, archive.volume, problem="rotten" if archive.volume == volume else None)
        for archive in manifest.archives
    ]
    look = Look(place.clock.now(), "data", 1.0)
    keep_findings(place.repository(), manifest, findings, look, place.runtime)


def test_it_refuses_when_the_newest_is_known_to_be_damaged(place: Place) -> None:
    newest = manifests(place)[0]
    found_damaged(place, newest)
    before = stored(place.stores[0])
    with pytest.raises(IntegrityError, match=rf"{newest.short_id} \(b\).* found by a check of all data") as refused:
        run_prune(place)
    assert "verify --repair" in (refused.value.hint or "")
    assert {key for key in before if not key.startswith("leases/")} <= stored(place.stores[0]).keys()
    a_day_later(place, 9)
    place.backup()
    assert run_prune(place).snapshots, "there is a newer one that is not"


def test_a_damaged_one_takes_nobody_s_place_and_stays(place: Place) -> None:
    """`last: 2` keeps two that are not known to be damaged, and the damaged one for whoever may mend it."""
    newest, second, third, *rest = manifests(place)
    found_damaged(place, third)
    pruned = run_prune(place)
    verdicts = {verdict.snapshot.id: verdict for verdict in pruned.outline.verdicts}
    assert verdicts[third.id].reasons == ("damaged: kept until it is mended or named",)
    kept_of_b = [m.id for m in pruned.outline.kept if "b" in m.volumes and m.id != third.id]
    assert kept_of_b == [newest.id, rest[0].id]
    assert second.volumes == frozenset({"a"})
    assert run_prune(place, request(KEEP, third.id)).snapshots == (third.id,), "named, it goes"
    check_all_that_is_listed(place.stores[0])


def test_of_a_volume_whose_newest_is_damaged_the_one_before_cannot_be_named(place: Place) -> None:
    newest, _, third, *_ = manifests(place)
    found_damaged(place, newest)
    with pytest.raises(PruneRefused, match=f"{third.short_id} is the newest good one of volume b"):
        run_prune(place, request(None, third.id))
    with pytest.raises(PruneRefused, match=f"{newest.short_id} is the newest good one of volume a"):
        run_prune(place, request(None, newest.id))


def test_what_it_looked_at_is_noted_once(place: Place) -> None:
    newest = manifests(place)[0]
    assert standing_of(place.repository(), newest.id).state == "unverified"
    run_prune(place)
    check = standing_of(place.repository(), newest.id).check
    assert check is not None
    assert (check.kind, check.good) == ("sizes", True)
    before = stored(place.stores[0])
    assert run_prune(place).outline.nothing_goes
    assert stored(place.stores[0]) == before


def test_records_go_with_their_snapshots_and_when_they_are_outdated(place: Place) -> None:
    newest, oldest = manifests(place)[0], manifests(place)[-1]
    for _ in range(3):
        for manifest in (newest, oldest):
            keep_findings(
                place.repository(), manifest, [Finding(manifest.id, name) for name in ("a", "b")],
                Look(place.clock.now(), "data", 1.0), place.runtime,
            )  # fmt: skip
    before = standing_of(place.repository(), newest.id)
    assert oldest.id in run_prune(place).snapshots
    left = [key for key in stored(place.stores[0]) if key.startswith("checks/")]
    assert left == [layout.check(newest.id, before.check.id)]  # type: ignore[union-attr]
    assert standing_of(place.repository(), newest.id) == before


def test_what_was_there_and_is_gone(tmp_path: Path) -> None:
    """Its objects would pass for garbage, and the one before for the newest."""
    place = use(with_history(tmp_path), Machine(tmp_path / "keys").security())
    newest = manifests(place)[0]
    place.stores[0].delete(layout.snapshot(newest.id))
    before = stored(place.stores[0])
    with pytest.raises(IntegrityError, match=f"nothing is pruned: one: snapshot {newest.short_id} of .* is gone") as no:
        run_prune(place)
    assert f"`backupd trust --accept {newest.short_id}`" in (no.value.hint or "")
    assert stored(place.stores[0]) == before
    trust = place.runtime.security.trust
    assert trust is not None
    trust.accept(place.repository().config.id, newest.id)
    assert run_prune(place).snapshots
