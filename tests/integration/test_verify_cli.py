"""`verify` on the command line: states that `list` and `show` tell, and what restore, prune and repair make of them."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.cli import Cli
from tools.fingerprint import fingerprint


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "big").write_bytes(os.urandom(6_000_000))
    (volume / "small").write_text("first\n")
    return volume


@pytest.fixture
def cli(make_cli: Callable[..., Cli], volume: Path, tmp_path: Path) -> Cli:
    stores = {name: {"type": "local", "path": str(tmp_path / name)} for name in ("one", "two")}
    keep = {"last": 1}
    plans = {"default": {"volumes": ["data"], "stores": ["one", "two"], "keep": keep}}
    return make_cli(engine="mounted", volumes={"data": {"path": str(volume)}}, stores=stores, plans=plans)


def flip(path: Path, at: int) -> None:
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def of(cli: Cli, snapshot: str, store: str) -> str:
    state: str = cli.json("list", "--store", store)["checks"][snapshot]["state"]
    return state


def test_a_day_of_damage(cli: Cli, volume: Path, tmp_path: Path) -> None:
    first = cli.json("backup")["snapshot"]["id"]
    before = fingerprint(volume)
    assert "unverified" in cli.run("list").stdout
    cli.run("verify", "--read-data")
    assert (of(cli, first, "one"), of(cli, first, "two")) == ("good", "good")
    assert "good, all data " in cli.run("show", first).stdout
    assert cli.json("show", first)["check"]["percent"] == 100

    # The beginning of the data in one store, their end in the other: neither has all of it, both together do.
    one, two = (next((tmp_path / name / "archives" / "data").glob("*.tar.zst")) for name in ("one", "two"))
    whole = one.read_bytes()
    flip(one, 3_000)  # no chunk is as long as from here to there
    flip(two, len(whole) - 3_000)
    (volume / "small").write_text("changed\n")
    for store in ("one", "two"):
        assert "damaged" in cli.run("verify", "--read-data", "--store", store, code=13).stdout
        assert of(cli, first, store) == "damaged"
        assert "damaged" in cli.error("restore", first, "--yes", "--no-safety-snapshot", "--store", store, code=13)
    assert "DAMAGED, all data" in cli.run("list").stdout
    assert (volume / "small").read_text() == "changed\n"
    done = cli.run("restore", first, "--yes", "--no-safety-snapshot")
    assert fingerprint(volume) == before
    assert f"snapshot {first[:8]} in store one is known to be damaged" in done.stderr
    assert "taken from store two" in done.stderr
    cli.run("export", first, "data", "-o", str(tmp_path / "x.tar"))
    assert stat.S_IMODE((tmp_path / "x.tar").stat().st_mode) == 0o600, "whatever the volume is, it is its owner's"
    repaired = cli.run("verify", "--repair", code=13)
    assert "no other store holds it whole" in repaired.stdout
    assert "`backupd prune ID` gives up the damaged one" in repaired.stderr

    # Nothing leans on it, `latest` passes over nothing newer, and prune goes on with what is newer.
    second = cli.json("backup")["snapshot"]
    assert second["archives"][0]["full"]
    cli.run("prune")
    assert [snapshot["id"] for snapshot in cli.json("list")["snapshots"]] == [second["id"], first]
    cli.run("prune", first, "--yes")
    assert [snapshot["id"] for snapshot in cli.json("list")["snapshots"]] == [second["id"]]


def test_repair_and_latest(cli: Cli, volume: Path, tmp_path: Path) -> None:
    cli.run("backup")  # the one that prune would remove
    first = cli.json("backup")["snapshot"]["id"]
    (volume / "more").write_bytes(os.urandom(3_000_000))
    second = cli.json("backup")["snapshot"]["id"]
    path = tmp_path / "one" / "archives" / "data" / f"{second}.tar.zst"
    genuine = path.read_bytes()
    flip(path, 100)
    cli.run("verify", "--read-data", "--store", "one", code=13)
    only_one = replace(cli, environment={"BACKUPD_STORES__TWO__PATH": str(tmp_path / "nowhere")})
    passed = only_one.run("show", "latest", "--store", "one")
    assert first in passed.stdout
    assert f"{second[:8]} of" in passed.stderr
    assert "is known to be damaged and passed over" in passed.stderr
    read = cli.run("show", "latest")
    assert second in read.stdout, "the other store has a copy that nobody has found damaged"
    assert "is read from store two" in read.stderr
    assert "nothing is pruned" in cli.error("prune", "--store", "one", code=13)

    document = cli.json("verify", "--repair", "--store", "one")
    assert [store["store"] for store in document["stores"]] == ["one"]
    assert document["stores"][0]["mended"] == {f"archives/data/{second}.tar.zst": "two"}
    assert document["problems"] == []
    assert path.read_bytes() == genuine
    assert of(cli, second, "one") == "good"
    (tmp_path / "one" / "snapshots" / f"{second}.json").unlink()
    cli.run("verify", code=13)
    assert "1 object mended" in cli.run("verify", "--repair").stdout
    assert second in cli.run("show", "latest", "--store", "one").stdout
    cli.run("prune")


def test_a_diff_of_snapshots_in_different_stores(make_cli: Callable[..., Cli], volume: Path, tmp_path: Path) -> None:
    stores = {name: {"type": "local", "path": str(tmp_path / name)} for name in ("one", "two")}
    plans = {name: {"volumes": ["data"], "stores": [name]} for name in stores}
    cli = make_cli(engine="mounted", volumes={"data": {"path": str(volume)}}, stores=stores, plans=plans)
    first = cli.json("backup", "one")["snapshot"]["id"]
    (volume / "small").write_text("changed\n")
    second = cli.json("backup", "two")["snapshot"]["id"]
    assert [item["path"] for item in cli.json("diff", first, second)["volumes"]["data"]] == ["small"]
    assert "has no snapshot" in cli.error("diff", first, second, "--store", "one", code=10)


def test_a_store_that_is_not_mounted_is_told_by_everything(cli: Cli, tmp_path: Path) -> None:
    assert "is in stores one and two" in cli.run("backup").stdout
    assert cli.json("history")["runs"][0]["stores"] == ["one", "two"]
    (tmp_path / "two").rename(tmp_path / "away")
    for command in ("verify", "prune"):
        assert "is it mounted?" in cli.error(command, code=3), "one was done, two was not"
    for words in (("list",), ("restore", "latest", "--yes"), ("verify",), ("prune",)):
        assert "is it mounted?" in cli.error(*words, "--store", "two", code=1)
    assert cli.json("backup", code=3)["stores"] == ["one"]
    assert not list((tmp_path / "two").glob("backupd.json"))


def test_forged_records_and_a_rolled_back_store(cli: Cli, tmp_path: Path) -> None:
    snapshot = cli.json("backup")["snapshot"]["id"]
    stranger = replace(cli, environment={"BACKUPD_STATE_DIR": str(tmp_path / "stranger")})
    data = tmp_path / "one" / "archives" / "data" / f"{snapshot}.tar.zst"
    flip(data, 100)
    stranger.run("verify", "--read-data", "--store", "one", code=13)
    flip(data, 100)
    listed = cli.run("list", "--store", "one")
    assert "unverified" in listed.stdout
    assert "is signed by a key that is not trusted" in listed.stderr
    assert "passed over" not in cli.run("show", "latest", "--store", "one").stderr
    (tmp_path / "one" / "snapshots" / f"{snapshot}.json").unlink()
    for arguments in (("list",), ("show", "latest"), ("restore", "latest", "--yes"), ("verify",), ("prune",)):
        assert "is gone" in str(cli.run(*arguments, "--store", "one", code=13))
    backup = cli.run("backup", code=3)
    assert "is gone" in backup.stdout + backup.stderr
    assert {one["id"] for one in cli.json("list", "--store", "one")["snapshots"]} > {snapshot}, "copied back from two"
