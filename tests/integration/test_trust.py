"""Keys on the command line: encrypted backups and their restore, forged and missing snapshots, exit codes 12 and 13."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyrage
import pytest

from tests.support.cli import Cli
from tools.fingerprint import fingerprint

PASSPHRASE = "correct horse"


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "private-name.txt").write_text("private content\n")
    (volume / "big").write_bytes(os.urandom(5_000_000))
    return volume


@pytest.fixture
def public(tmp_path: Path) -> str:
    path = tmp_path / "key"
    done = subprocess.run(Cli(path).command("keygen", "-o", str(path)), text=True, capture_output=True, check=True)
    assert path.stat().st_mode & 0o777 == 0o600
    return done.stdout.strip()


@pytest.fixture
def cli(make_cli: Callable[..., Cli], volume: Path, public: str) -> Cli:
    return make_cli(engine="mounted", volumes={"data": {"path": str(volume)}}, encryption={"recipients": [public]})


def with_key(cli: Cli, path: Path, **more: str) -> Cli:
    return replace(cli, environment={"BACKUPD_IDENTITY_FILE": str(path), **more})


def test_keygen(tmp_path: Path, public: str) -> None:
    cli = Cli(tmp_path / "no configuration is needed")
    assert re.fullmatch(r"age1[0-9a-z]{58}", public)
    content = (tmp_path / "key").read_text()
    assert f"# public key: {public}\nAGE-SECRET-KEY-1" in content
    assert "exists: a key is never overwritten" in cli.error("keygen", "-o", str(tmp_path / "key"), code=2)
    assert (tmp_path / "key").read_text() == content
    printed = cli.run("keygen").stdout
    assert pyrage.x25519.Identity.from_str(printed.splitlines()[-1]).to_public()
    document = cli.json("keygen", "-o", str(tmp_path / "another"))
    assert document == {"recipient": document["recipient"], "file": str(tmp_path / "another")}
    assert document["recipient"] in (tmp_path / "another").read_text()


def test_a_day_with_keys(cli: Cli, volume: Path, public: str, tmp_path: Path) -> None:
    cli.run("backup")
    before = fingerprint(volume)
    (volume / "private-name.txt").write_text("changed\n")
    assert re.search(r"data +incremental", cli.run("backup").stdout)
    assert cli.run("list").stdout.count("complete, encrypted") == 2
    newest, oldest = cli.json("list")["snapshots"]
    assert newest["encryption"] == {"recipients": [public], "opened": False}
    assert "(encrypted)" in cli.run("show", "latest").stdout
    assert public in cli.run("show", "latest").stdout
    cli.run("verify")
    stored = b"".join(path.read_bytes() for path in (tmp_path / "backups").rglob("*") if path.is_file())
    assert b"private-name" not in stored
    assert str(volume).encode() not in stored
    for arguments in (
        ("ls", "latest", "data"),
        ("cat", "latest", "data", "private-name.txt"),
        ("diff", oldest["id"], "latest"),
        ("export", "latest", "data", "-o", str(tmp_path / "x.tar")),
        ("restore", "latest", "--to-dir", str(tmp_path / "x")),
        ("verify", "--read-data"),
    ):
        said = cli.error(*arguments, code=12)
        assert "there is no identity" in said
        assert "hint: --identity FILE, or BACKUPD_IDENTITY_FILE" in said
    assert not (tmp_path / "x.tar").exists()

    keyed = with_key(cli, tmp_path / "key")
    assert "private-name.txt" in keyed.run("ls", "latest", "data").stdout
    assert (
        cli.run("--identity", str(tmp_path / "key"), "cat", "latest", "data", "private-name.txt").stdout == "changed\n"
    )
    assert "~ data/private-name.txt" in keyed.run("diff", oldest["id"], "latest").stdout
    keyed.run("verify", "--read-data")
    assert keyed.json("show", "latest")["archives"][0]["source"]["source"] == str(volume)
    keyed.run("restore", oldest["id"], "--yes")
    assert fingerprint(volume) == before
    safety = cli.json("list", "--plan", "safety")["snapshots"]
    assert [snapshot["encryption"]["recipients"] for snapshot in safety] == [[public]]


def test_keys_that_do_not_fit(cli: Cli, tmp_path: Path, public: str) -> None:
    cli.run("backup")
    secret = (tmp_path / "key").read_bytes()
    cli.run("keygen", "-o", str(tmp_path / "other"))
    (tmp_path / "sealed").write_bytes(pyrage.passphrase.encrypt(secret, PASSPHRASE))
    (tmp_path / "passphrase").write_text(PASSPHRASE + "\n")
    (tmp_path / "text").write_text("hello\n")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "pw", "-f", tmp_path / "ssh"], check=True)
    for name, said in (
        ("other", "is encrypted for other keys than those of"),
        ("nothing", "cannot read"),
        ("sealed", "is protected by a passphrase, and nobody is there to give it"),
        ("text", "line 1: not an identity"),
        ("ssh", "is an SSH key with a passphrase, which cannot be used"),
    ):
        assert said in with_key(cli, tmp_path / name).error("ls", "latest", "data", code=12)
    good = {"BACKUPD_IDENTITY_PASSPHRASE_FILE": str(tmp_path / "passphrase")}
    assert "private-name.txt" in with_key(cli, tmp_path / "sealed", **good).run("ls", "latest", "data").stdout
    bad = {"BACKUPD_IDENTITY_PASSPHRASE_FILE": str(tmp_path / "text")}
    assert "cannot be opened" in with_key(cli, tmp_path / "sealed", **bad).error("ls", "latest", "data", code=12)


def test_recipients_from_a_file_and_ssh_keys(
    make_cli: Callable[..., Cli], volume: Path, public: str, tmp_path: Path
) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "ssh", "-C", "me"], check=True)
    (tmp_path / "recipients").write_text(f"# whom\n\n{public}\n{(tmp_path / 'ssh.pub').read_text()}")
    cli = replace(
        make_cli(engine="mounted", volumes={"data": {"path": str(volume)}}),
        environment={"BACKUPD_ENCRYPTION__RECIPIENTS_FILE": "recipients"},
    )
    recipients = cli.json("backup")["snapshot"]["encryption"]["recipients"]
    assert sorted(recipients) == sorted([public, " ".join((tmp_path / "ssh.pub").read_text().split()[:2])])
    for key in ("key", "ssh"):
        assert "private-name.txt" in cli.run("ls", "latest", "data", "--identity", str(tmp_path / key)).stdout


def test_forged_and_rolled_back(cli: Cli, tmp_path: Path) -> None:
    cli.run("backup")
    cli.run("backup")
    newest, oldest = [snapshot["id"] for snapshot in cli.json("list")["snapshots"]]
    document = cli.json("trust")
    assert document["key"] in document["stores"][0]["signers"]
    assert document["stores"][0]["snapshots"] == 2

    path = tmp_path / "backups" / "snapshots" / f"{newest}.json"
    genuine = path.read_bytes()
    path.unlink()
    assert f"snapshot {newest[:8]} of" in cli.error("list", code=13)
    assert "was there and is gone" in cli.error("restore", "latest", "--yes", code=13)
    assert "is gone" in cli.run("verify", code=13).stdout
    path.write_bytes(genuine)
    cli.run("verify")

    from blake3 import blake3  # noqa: PLC0415

    forged = genuine.replace(b'"plan": "default"', b'"plan": "forgery"')
    forged = forged[: forged.rindex(b',\n "blake3"')]
    path.chmod(0o600)
    path.write_bytes(forged + b',\n "blake3": "%b"\n}\n' % blake3(forged).hexdigest().encode())
    for arguments in (("list",), ("show", newest), ("restore", newest, "--yes")):
        assert "its manifest was exchanged" in cli.error(*arguments, code=13)
    assert cli.run("show", oldest).stdout
    fresh = replace(cli, environment={"BACKUPD_STATE_DIR": str(tmp_path / "fresh")})
    assert "forged or altered: its signature is wrong" in fresh.error("list", code=13)
    strict = replace(fresh, environment={**fresh.environment, "BACKUPD_TRUST__SIGNERS": "ed25519:" + "0" * 64})
    assert "not trusted" in strict.run("list", code=13).stderr

    path.unlink()
    cli.run("trust", "--accept", newest[:8])
    assert [snapshot["id"] for snapshot in cli.json("list")["snapshots"]] == [oldest]
    assert json.loads((tmp_path / "state" / "stores.json").read_text())


def test_another_repository_in_the_store_s_place(cli: Cli, tmp_path: Path) -> None:
    cli.run("backup")
    elsewhere = {"BACKUPD_STATE_DIR": str(tmp_path / "e"), "BACKUPD_STORES__LOCAL__PATH": str(tmp_path / "other")}
    replace(cli, environment=elsewhere).run("backup")
    (tmp_path / "backups").rename(tmp_path / "kept")
    (tmp_path / "other").rename(tmp_path / "backups")
    assert "is it mounted?" in cli.error("list", code=1)


def test_a_store_that_was_rolled_back_is_passed_over(
    make_cli: Callable[..., Cli], volume: Path, tmp_path: Path
) -> None:
    stores = {name: {"type": "local", "path": str(tmp_path / name)} for name in ("one", "two")}
    cli = make_cli(engine="mounted", volumes={"data": {"path": str(volume)}}, stores=stores)
    newest = cli.json("backup")["snapshot"]["id"]
    cli.run("list", "--store", "two")
    (tmp_path / "one" / "snapshots" / f"{newest}.json").unlink()
    done = cli.run("show", "latest")
    assert newest in done.stdout
    assert "warning: one: snapshot" in done.stderr
    assert "is gone" in cli.error("show", "latest", "--store", "one", code=13)
