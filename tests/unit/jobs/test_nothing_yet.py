"""Runs by schedule before there is anything that they could be about: no failures, and no successes."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path

import pytest

from backupd.daemon.child import carry_out
from backupd.daemon.messages import Reply, Task
from backupd.history import Run, RunKind
from backupd.jobs.backup import run_backup
from backupd.jobs.site import Site
from backupd.runs import Draft
from backupd.settings import Settings, load_settings
from tests.support.runtime import BEGIN, RecordingProgress


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_text("data")
    (tmp_path / "backupd.yaml").write_text(
        f"engine: mounted\nstate_dir: {tmp_path}/state\nvolumes: {{data: {{path: {tmp_path}/data}}}}\n"
        f"stores: {{here: {{type: local, path: {tmp_path}/here}}, there: {{type: local, path: {tmp_path}/there}}}}\n"
        "plans: {n: {volumes: [data], stores: [here, there]}, other: {volumes: [data], stores: [here]}}\n"
    )
    return load_settings(tmp_path / "backupd.yaml", {})


def by_schedule(settings: Settings, kind: RunKind) -> Reply:
    plan = None if kind == "prune" else "n"
    return carry_out(Task("run", Run(id="a", kind=kind, plan=plan, started=BEGIN), settings))


def back_up(settings: Settings, plan: str) -> None:
    with closing(Site(settings, RecordingProgress(), print)) as site:
        run_backup(site, plan, Draft(Run(id="b", kind="backup", started=BEGIN)))


@pytest.mark.parametrize("kind", ["verify", "drill", "prune"])
def test_before_there_is_a_repository(settings: Settings, kind: RunKind) -> None:
    reply = by_schedule(settings, kind)
    assert (reply.skipped, reply.run.early) == (True, True)
    assert reply.error == f"skipped: nothing to {kind} yet: store here holds no repository"


@pytest.mark.parametrize("kind", ["verify", "drill"])
def test_before_the_plan_has_a_snapshot(settings: Settings, kind: RunKind) -> None:
    back_up(settings, "other")
    reply = by_schedule(settings, kind)
    assert (reply.skipped, reply.run.early) == (True, True)
    assert str(reply.error).startswith(f"skipped: nothing to {kind} yet: ")
    back_up(settings, "n")
    assert by_schedule(settings, kind).error is None


@pytest.mark.parametrize("kind", ["verify", "drill", "prune"])
def test_what_is_gone_was_there(settings: Settings, kind: RunKind, tmp_path: Path) -> None:
    """As where a disk is not mounted."""
    back_up(settings, "n")
    for name in ("here", "there"):
        shutil.rmtree(tmp_path / name)
        (tmp_path / name).mkdir()
    reply = by_schedule(settings, kind)
    assert not reply.skipped
    assert "is it mounted?" in str(reply.error)


@pytest.mark.parametrize("kind", ["verify", "drill"])
def test_a_store_that_can_not_tell_may_have_some(settings: Settings, kind: RunKind, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "backupd.json").write_text("{}")
    reply = by_schedule(settings, kind)
    assert not reply.skipped
    assert "there: backupd.json is damaged" in f"{reply.error} {reply.run.notes}"


@pytest.mark.parametrize("kind", ["verify", "drill"])
def test_a_snapshot_that_is_damaged_is_one(settings: Settings, kind: RunKind, tmp_path: Path) -> None:
    back_up(settings, "n")
    for name in ("here", "there"):
        (manifest,) = (tmp_path / name / "snapshots").iterdir()
        manifest.chmod(0o600)
        manifest.write_text("{}")
    reply = by_schedule(settings, kind)
    assert not reply.skipped
    assert reply.exit_code == 13
