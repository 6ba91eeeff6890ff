"""What checks and drills come to."""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from backupd.repository import CheckKind, CheckRecord, DrillOutcome, DrillRecord, VolumeCheck, VolumeDrill
from backupd.repository.standing import standing, superseded
from tests.support.runtime import BEGIN

VOLUMES = ("v", "w")


def check(minute: int, kind: CheckKind = "sizes", fraction: float = 0.0, bad: Collection[str] = ()) -> CheckRecord:
    time = BEGIN + timedelta(minutes=minute)
    return CheckRecord(
        id=f"{time:%Y%m%dT%H%M%SZ}-0000000{minute % 10}", repository="r", snapshot="0123456789abcdef", time=time,
        finished=time, host="h", program="p", kind=kind, fraction=fraction,
        volumes=[VolumeCheck(volume=name, problem="broken" if name in bad else None) for name in VOLUMES],
    )  # fmt: skip


def drill(minute: int, outcomes: dict[str, DrillOutcome]) -> DrillRecord:
    time = BEGIN + timedelta(minutes=minute)
    volumes = [
        VolumeDrill(volume=name, outcome=outcome, moment=BEGIN, restore_seconds=1, recovery_seconds=1)
        for name, outcome in outcomes.items()
    ]
    return DrillRecord(
        id=f"{time:%Y%m%dT%H%M%SZ}-00000000", snapshot="0123456789abcdef", plan="p", time=time, finished=time, host="h",
        program="p", engine="docker", outcome="failed" if "failed" in outcomes.values() else "proven",
        recovery_seconds=1, age_seconds=1, volumes=volumes, missing=[name for name in VOLUMES if name not in outcomes],
    )  # fmt: skip


def test_nobody_has_looked() -> None:
    assert standing([]).state == "unverified"


def test_the_closest_look_is_shown() -> None:
    whole = check(1, "data", 1.0)
    found = standing([check(3), whole, check(2, "data", 0.05)])
    assert (found.state, found.check, found.problem) == ("good", whole, None)
    assert [one.how for one in (check(3), whole, check(2, "data", 0.05))] == ["sizes", "all data", "5% of data"]


def test_a_quicker_look_does_not_lift_what_a_closer_one_found() -> None:
    bad = check(1, "data", 1.0, ["w"])
    for later in (check(2), check(2, "data", 0.99), check(2, "objects", 0.5)):
        found = standing([later, bad])
        assert (found.state, dict(found.damaged), found.problem) == ("damaged", {"w": bad}, "w: broken")
    for later in (check(2, "data", 1.0), check(2, "objects", 1.0)):
        assert standing([later, bad]).state == "good"
    assert standing([check(1), check(2, "data", 0.05, ["v"])]).state == "damaged"


def test_what_sizes_told_sizes_lift() -> None:
    assert standing([check(1, bad=["v"]), check(2)]).state == "good"


def test_volumes_are_judged_one_by_one() -> None:
    first, second = check(1, "data", 1.0, ["v", "w"]), check(2, "data", 1.0, ["w"])
    assert dict(standing([first, second]).damaged) == {"w": second}


def test_drills_count() -> None:
    bad = check(2, "data", 1.0, ["v"])
    assert standing([], drill(1, {"v": "proven", "w": "files"})).state == "good"
    assert standing([], drill(1, {"v": "proven"})).state == "unverified", "a part is not the whole"
    assert standing([], drill(1, {"v": "failed", "w": "proven"})).state == "unverified", "services may be to blame"
    assert standing([bad], drill(3, {"v": "proven", "w": "proven"})).state == "good"
    assert standing([bad], drill(3, {"v": "failed", "w": "proven"})).state == "damaged"
    assert standing([bad], drill(1, {"v": "proven", "w": "proven"})).state == "damaged"


looks = st.sampled_from([("sizes", 0.0), *((kind, part) for kind in ("objects", "data") for part in (0.05, 1.0))])


def test_what_is_found_after_a_drill_counts() -> None:
    early, late = check(1, "data", 1.0, ["v"]), check(5, bad=["v"])
    assert dict(standing([early, late], drill(3, {"v": "proven", "w": "proven"})).damaged) == {"v": late}


checks = st.lists(st.tuples(looks, st.sets(st.sampled_from(VOLUMES))), max_size=9)
drills = st.none() | st.builds(
    drill,
    st.integers(0, 9),
    st.dictionaries(st.sampled_from(VOLUMES), st.sampled_from(["proven", "files", "failed"]), min_size=1),
)


@given(checks, drills, checks)
def test_what_is_superseded_is_not_missed(
    before: list[tuple[tuple[CheckKind, float], set[str]]],
    last: DrillRecord | None,
    after: list[tuple[tuple[CheckKind, float], set[str]]],
) -> None:
    every = [check(minute, *look, bad) for minute, (look, bad) in enumerate([*before, *after])]
    old = every[: len(before)]
    gone = superseded(old, last)
    left = [one for one in old if one not in gone]
    for count in range(len(before), len(every) + 1):
        later = every[len(before) : count]
        full, short = standing([*old, *later], last), standing([*left, *later], last)
        assert (short.state, dict(short.damaged)) == (full.state, dict(full.damaged))
    assert len(left) <= 2 + len(VOLUMES)
