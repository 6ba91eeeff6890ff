"""`keep` by plan and store."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import pytest

from backupd.model import KeepPolicy
from backupd.settings import SettingsError, load_settings
from backupd.wiring import prune_rules

BASE = """
engine: mounted
stores: {near: {type: local, path: ./near}, far: {type: local, path: ./far}, other: {type: local, path: ./other}}
volumes: {data: {path: ./data}}
plans: {nightly: {volumes: [data], stores: [near, far], timezone: Europe/Madrid, keep: KEEP}}
"""


def settings(tmp_path: Path, keep: str, **environment: str):  # type: ignore[no-untyped-def]
    (tmp_path / "b.yaml").write_text(BASE.replace("KEEP", keep))
    return load_settings(tmp_path / "b.yaml", environment)


def test_a_store_has_rules_of_its_own(tmp_path: Path) -> None:
    found = settings(tmp_path, "{daily: 7, stores: {far: {monthly: 12, within: 3d}}}")
    plan = found.plan("nightly")
    far = KeepPolicy(monthly=12, within=timedelta(days=3))
    assert plan.keep == {"near": KeepPolicy(daily=7), "far": far}
    assert plan.timezone == "Europe/Madrid"
    assert prune_rules(found, "far").plans == {"nightly": (far, "Europe/Madrid")}
    assert prune_rules(found, "other").plans == {"nightly": (KeepPolicy(daily=7), "Europe/Madrid")}


def test_only_one_store_is_pruned(tmp_path: Path) -> None:
    found = settings(tmp_path, "{stores: {near: {last: 3}}}")
    assert found.plan("nightly").keep == {"near": KeepPolicy(last=3)}
    assert prune_rules(found, "far").plans == {"nightly": (None, "Europe/Madrid")}


def test_without_keep_nothing_is_pruned(tmp_path: Path) -> None:
    found = settings(tmp_path, "null")
    assert found.plan("nightly").keep == {}
    assert prune_rules(found, "near").plans == {"nightly": (None, "Europe/Madrid")}
    assert prune_rules(found, "near").safety == timedelta(days=14)
    assert prune_rules(found, "near").grace == timedelta(days=1)


def test_proven_ones(tmp_path: Path) -> None:
    found = settings(tmp_path, "{daily: 7, proven: 2, stores: {far: {monthly: 12, prefer_proven: true}}}")
    rules = prune_rules(found, "far")
    assert rules.plans["nightly"][0] == KeepPolicy(monthly=12, prefer_proven=True)
    assert rules.ask_for_proven
    assert prune_rules(found, "near").plans["nightly"][0] == KeepPolicy(daily=7, proven=2)
    assert not prune_rules(settings(tmp_path, "{daily: 7}"), "near").ask_for_proven


def test_from_the_environment(tmp_path: Path) -> None:
    found = settings(tmp_path, "{daily: 7}", BACKUPD_PLANS__NIGHTLY__KEEP__STORES__FAR__YEARLY="2")
    assert found.plan("nightly").keep["far"] == KeepPolicy(yearly=2)


@pytest.mark.parametrize(
    ("keep", "said"),
    [
        (
            "{stores: {fra: {last: 1}}}",
            r"nightly\.keep\.stores\.fra: the plan has no store 'fra'; did you mean far",
        ),
        ("{stores: {other: {last: 1}}}", r"the plan has no store 'other'"),
        ("{stores: {far: {at_least: 1}}}", r"keep\.stores\.far: expected at least one of last"),
        ("{at_least: 3}", r"plans\.nightly\.keep: expected at least one of last"),
        ("{proven: 3, prefer_proven: true}", r"plans\.nightly\.keep: expected at least one of last"),
        ("{stores: {}}", r"plans\.nightly\.keep: expected at least one of last"),
        ("{last: 1, stores: {far: {lsat: 1}}}", r"keep\.stores\.far\.lsat: unknown key; did you mean last"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, keep: str, said: str) -> None:
    with pytest.raises(SettingsError) as wrong:
        settings(tmp_path, keep)
    assert re.search(said, str(wrong.value))
