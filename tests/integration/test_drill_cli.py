"""`backupd drill` on directories, without Docker: what it says, where its record goes, what it refuses."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.cli import Cli


@pytest.fixture
def cli(make_cli: Callable[..., Cli], tmp_path: Path) -> Cli:
    for name in ("storage", "app"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(bytes(range(256)) * 4096)
    database = sqlite3.connect(tmp_path / "app" / "app.db")
    database.execute("create table users (name)")
    database.executemany("insert into users values (?)", [(f"user {i}",) for i in range(100)])
    database.commit()
    database.close()
    return make_cli(
        engine="mounted",
        volumes={name: {"path": str(tmp_path / name)} for name in ("storage", "app")},
        plans={
            "nightly": {"volumes": ["storage", "app"], "stores": ["local"], "drill": {"schedule": "@weekly"}},
            "hourly": {"volumes": ["app"], "stores": ["local"]},
        },
    )


def proven(cli: Cli, snapshot: str) -> str:
    lines = cli.run("list").stdout.splitlines()
    place = lines[0].index("PROVEN")
    return next(line[place:] for line in lines if line.startswith(snapshot[:8]))


def test_a_drill_without_services(cli: Cli, tmp_path: Path) -> None:
    snapshot = cli.json("backup", "nightly")["snapshot"]["id"]
    assert proven(cli, snapshot) == ""
    partial = cli.run("drill", snapshot, "--volume", "app").stdout
    assert "files only (without storage)" in partial
    assert proven(cli, snapshot).endswith("1 of 2 files")
    out = cli.run("drill", "--plan", "nightly").stdout
    assert "✓ sqlite (app): app.db: integrity_check ok, 100 rows in 1 tables" in out
    assert "– start (services): no service was started on it: the mounted engine knows no services" in out
    assert "(RTO)" in out
    assert proven(cli, snapshot).endswith(" files")
    assert len(list((tmp_path / "backups" / "drills" / snapshot).iterdir())) == 2
    shown = cli.json("show", snapshot)
    assert sorted(len(drill["volumes"]) for drill in shown["drills"]) == [1, 2], "in any order within one second"
    assert cli.json("list")["drills"][snapshot]["good"] is True
    assert not list((tmp_path / "state" / "drills").iterdir())


def test_the_newest_of_the_plan(cli: Cli) -> None:
    nightly = cli.json("backup", "nightly")["snapshot"]["id"]
    hourly = cli.json("backup", "hourly")["snapshot"]["id"]
    assert cli.json("drill", "--plan", "nightly")["drill"]["snapshot"] == nightly
    assert cli.json("drill", "latest")["drill"]["snapshot"] == hourly
    assert "there are several plans" in cli.error("drill", code=2)
    assert "there is no plan 'nightli'" in cli.error("drill", "--plan", "nightli", code=2)
    assert "not both" in cli.error("drill", nightly, "--plan", "nightly", code=2)
    assert "holds no volume storage" in cli.error("drill", hourly, "--volume", "storage", code=10)


def test_before_the_first_backup(cli: Cli) -> None:
    assert "holds no repository" in cli.error("drill", "--plan", "nightly", code=10)


def test_damage_is_an_exit_code_of_its_own(cli: Cli, tmp_path: Path) -> None:
    pages = bytearray((tmp_path / "app" / "app.db").read_bytes())
    pages[4096:4196] = bytes(100)
    (tmp_path / "app" / "app.db").write_bytes(pages)
    snapshot = cli.json("backup", "nightly")["snapshot"]["id"]
    result = cli.run("drill", snapshot, code=13)
    assert "✗ sqlite (app): app.db: " in result.stdout
    assert f"the drill of snapshot {snapshot[:8]} failed: app: app.db: " in result.stderr
    assert proven(cli, snapshot).startswith("✗ ")
    assert "FAILED" in cli.run("show", snapshot).stdout


def test_a_damaged_record_proves_nothing(cli: Cli, tmp_path: Path) -> None:
    snapshot = cli.json("backup", "nightly")["snapshot"]["id"]
    cli.run("drill", snapshot)
    (record,) = (tmp_path / "backups" / "drills" / snapshot).iterdir()
    record.chmod(0o600)
    record.write_text(record.read_text().replace("files", "fails"))
    result = cli.run("list", code=13)
    assert "is damaged" in result.stderr
    assert snapshot[:8] in result.stdout
    shown = cli.run("show", snapshot)
    assert "is damaged" in shown.stderr
    assert "last drill" not in shown.stdout
