"""What docs/operations.md says to do, with keys: its blocks are run as written, on directories in place of volumes."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.cli import Cli
from tests.support.documents import blocks, run_as_written, substituted
from tools.fingerprint import fingerprint

OPERATIONS = "docs/operations.md"


@dataclass
class Server:
    """A machine with a stack: a configuration, a volume `postgres`, a local store, and the bucket that outlives it."""

    path: Path
    bucket: Path
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.path.mkdir()
        self.configure()

    def configure(self, **settings: Any) -> None:
        self.settings |= settings
        config = {
            "engine": "mounted",
            "state_dir": str(self.path / "state"),
            "stores": {
                "local": {"type": "local", "path": str(self.path / "backups")},
                "offsite": {"type": "local", "path": str(self.bucket)},
            },
            "volumes": {"postgres": {"path": str(self.volume)}},
            "plans": {"nightly": {"volumes": ["postgres"], "stores": ["local", "offsite"]}},
            **self.settings,
        }
        (self.path / "backupd.yaml").write_text(yaml.safe_dump(config))

    @property
    def volume(self) -> Path:
        return self.path / "postgres"

    @property
    def cli(self) -> Cli:
        return Cli(self.path / "backupd.yaml")

    def write(self, text: str) -> dict[Any, Any]:
        """Put something into the volume; what it is now."""
        self.volume.mkdir(exist_ok=True)
        (self.volume / "data").write_text(text)
        return self.prints()

    def prints(self) -> dict[Any, Any]:
        return dict(fingerprint(self.volume))

    def do(self, script: str, code: int = 0) -> str:
        return run_as_written(script, self.path, environment={"BACKUPD_CONFIG": "backupd.yaml"}, code=code)

    def backup(self) -> dict[str, Any]:
        return dict(self.cli.json("backup", "nightly")["snapshot"])


@pytest.fixture
def server(tmp_path: Path) -> Server:
    """Encrypted for a key that is in `backupd.key`, as somebody has brought it."""
    server = Server(tmp_path / "server", tmp_path / "bucket")
    server.configure(encryption={"recipients": [server.do("backupd keygen -o backupd.key").strip()]})
    return server


def test_at_3_am_without_a_key(server: Server) -> None:
    plain, _ = blocks(OPERATIONS, "Restore at 3 a.m.")
    server.configure(encryption={"recipients": []})
    good = server.write("good")
    old = server.backup()["id"]
    server.write("damaged")
    said = server.do(substituted(plain, {"0a1b2c3d": old[:8]}))
    assert "dry run: nothing was changed" in said
    assert said.count("now holds postgres as in snapshot") == 2
    assert server.prints() == good


def test_at_3_am_with_a_key(server: Server) -> None:
    _, encrypted = blocks(OPERATIONS, "Restore at 3 a.m.")
    good = server.write("good")
    server.backup()
    server.write("damaged")
    key = server.path / "key-in-memory"
    server.do(substituted(encrypted, {"/tmp/key": str(key)}))
    assert server.prints() == good
    assert not key.exists()


@pytest.mark.parametrize("encrypted", [False, True])
def test_a_new_host(server: Server, tmp_path: Path, *, encrypted: bool) -> None:
    """The bucket, and the key: nothing else of the old one is there."""
    plain, keyed = blocks(OPERATIONS, "Move to a new host")
    if not encrypted:
        server.configure(encryption={"recipients": []})
    good = server.write("good")
    server.backup()
    another = Server(tmp_path / "another", server.bucket, dict(server.settings))
    shutil.copy(server.path / "backupd.key", another.path)
    shutil.rmtree(server.path)
    if encrypted:
        looking, restoring = plain.splitlines()
        another.do(looking)
        another.do(restoring, code=12)
        assert not another.volume.exists()
        another.do(keyed)
    else:
        another.do(plain)
    assert another.prints() == good
    another.write("and on it goes")
    another.backup()
    assert len(another.cli.json("list", "--store", "offsite")["snapshots"]) == 2
    assert another.cli.json("verify")["problems"] == []


def test_rotating_the_key_of_the_data(server: Server) -> None:
    making, hanging_up, proving = blocks(OPERATIONS, "Encryption")
    assert "kill -HUP 1" in hanging_up, "run with the daemon in tests/e2e"
    (old,) = server.settings["encryption"]["recipients"]
    server.write("one")
    snapshots = [server.backup()]
    new = server.do(making).strip()
    for recipients in ([old, new], [new]):
        server.configure(encryption={"recipients": recipients})
        server.write(f"for {len(recipients)}")
        snapshots.append(server.backup())
    assert [snapshot["archives"][0]["parent"] for snapshot in snapshots[:2]] == [None, None], "both are full"
    for snapshot, recipients in zip(snapshots, ([old], [old, new], [new]), strict=True):
        shown = server.do(f"backupd show {snapshot['id']}")
        assert [key in shown for key in (old, new)] == [key in recipients for key in (old, new)]
        for file, key in (("backupd.key", old), ("new.key", new)):
            code = 0 if key in recipients else 12
            server.cli.run("--identity", str(server.path / file), "ls", snapshot["id"], "postgres", code=code)
    server.do(proving)
    server.do(proving.splitlines()[1].replace("both", "new"), code=12)
    server.do(proving.replace("5%", "100%"))


def test_rotating_the_key_of_the_machine(server: Server) -> None:
    """The old one is believed until it is said that it is not; then what was accepted still is."""
    (rotating,) = blocks(OPERATIONS, "Signing")
    server.configure(encryption={"recipients": []})
    good = server.write("good")
    accepted, refused = (server.backup()["id"] for _ in range(2))
    before = server.do("backupd trust").splitlines()[0]
    said = server.do(substituted(rotating, {"/var/lib/backupd": "state"}))
    (new,) = re.findall(r"this machine signs as (ed25519:\w+)", said)
    assert new not in before
    newest = server.backup()["id"]
    assert server.cli.json("verify")["problems"] == []
    assert {one["id"] for one in server.cli.json("list")["snapshots"]} == {accepted, refused, newest}

    server.configure(trust={"signers": [new]})
    assert "is signed by a key that is not trusted" in server.cli.error("show", accepted, code=13)
    server.do(f"backupd trust --accept {accepted}")
    server.write("damaged")
    server.do(f"backupd restore {accepted} --yes")
    assert server.prints() == good
    server.cli.error("restore", refused, "--yes", code=13)
    server.do("backupd restore latest --yes")
