"""Access control lists: by number, as owners are, and those of a tar that was made by hand."""

from __future__ import annotations

import os
import pwd
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.cli import Cli
from tools.fingerprint import differences, fingerprint

ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"
KNOWN = pwd.getpwnam("nobody")
"""Somebody with a name on this machine, which stands for another number on the next one."""


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    root = tmp_path / "volumes" / "storage"
    root.mkdir(parents=True)
    (root / "file").write_text("x")
    os.setxattr(root / "file", ACCESS, acl(reader=KNOWN.pw_uid))
    return root


@pytest.fixture
def cli(make_cli: Callable[..., Cli], volume: Path) -> Cli:
    return make_cli(engine="mounted", volumes={"storage": {"path": str(volume)}})


def test_they_are_kept_by_number(cli: Cli, volume: Path, tmp_path: Path) -> None:
    before = fingerprint(volume)
    cli.run("backup")
    cli.run("export", "latest", "storage", "-o", str(tmp_path / "out.tar"))
    stream = (tmp_path / "out.tar").read_bytes()
    assert b"SCHILY.xattr.system.posix_acl_access" in stream
    assert b"SCHILY.acl" not in stream
    assert KNOWN.pw_name.encode() not in stream
    os.removexattr(volume / "file", ACCESS)
    cli.run("restore", "latest", "--yes")
    assert differences(before, fingerprint(volume)) == []
    assert os.getxattr(volume / "file", ACCESS) == acl(reader=KNOWN.pw_uid)


@pytest.mark.parametrize("way", ["whole", "path", "to-dir"])
def test_what_is_restored_gets_none_of_those_that_directories_hand_down(
    cli: Cli, volume: Path, tmp_path: Path, way: str
) -> None:
    """A default ACL of the volume's root, of the directory restored to, and of one with files in it."""
    (volume / "private").write_text("x")
    (volume / "private").chmod(0o640)
    (volume / "open" / "below").mkdir(parents=True)
    (volume / "open" / "below" / "file").write_text("x")
    for directory in (volume, volume / "open", tmp_path):
        os.setxattr(directory, DEFAULT, acl(reader=1234))
    before = fingerprint(volume)
    assert not [path for path in (volume / "private", volume / "open" / "below") if ACCESS in os.listxattr(path)]
    cli.run("backup")
    if way == "to-dir":
        cli.run("restore", "latest", "storage", "--to-dir", str(tmp_path / "out"))
        assert differences(before, fingerprint(tmp_path / "out")) == []
        return
    shutil.rmtree(volume / "open")
    (volume / "private").unlink()
    paths = ["--path", "open", "--path", "private"] if way == "path" else []
    cli.run("restore", "latest", "storage", "--yes", *paths)
    after = fingerprint(volume)
    if way == "path":
        before[b"."]["mtime"] = after[b"."]["mtime"]  # of a directory that things were moved into
    assert differences(before, after) == []


def test_those_that_tar_wrote_in_a_form_of_its_own_come_back(cli: Cli, volume: Path, tmp_path: Path) -> None:
    tar = tmp_path / "by-hand.tar"
    subprocess.run(["tar", "--acls", "-C", volume, "-cf", tar, "."], check=True)
    imported = cli.json("import", "storage", str(tar))["snapshot"]["id"]
    os.removexattr(volume / "file", ACCESS)
    cli.run("restore", imported, "--yes")
    assert os.getxattr(volume / "file", ACCESS) == acl(reader=KNOWN.pw_uid)


def acl(reader: int) -> bytes:
    """What the kernel holds: version, then tag, permissions and id of each entry."""
    nobody = 0xFFFFFFFF
    entries = ((0x01, 6, nobody), (0x02, 4, reader), (0x04, 4, nobody), (0x10, 4, nobody), (0x20, 0, nobody))
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
