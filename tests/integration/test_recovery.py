"""recover.py gets everything out, without backupd and its dependencies; the age program and backupd read each other."""

from __future__ import annotations

import ast
import json
import os
import pty
import random
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pyrage
import pytest

from backupd.crypto import Recipients
from backupd.model import Compression
from backupd.recovery import GUIDE, SCRIPT, install
from backupd.repository import Repository
from backupd.stores.local import LocalStore
from backupd.stores.memory import MemoryStore
from backupd.verify.recording import Look, keep_findings
from backupd.verify.verifier import Finding
from tests.golden.make_format_1 import jsonable
from tests.golden.make_format_2 import PASSPHRASE
from tests.golden.test_format_1 import comparable
from tests.support.keys import Machine, need, nobody, pair, use
from tests.support.runtime import Place, fill
from tests.support.two_stores import SMALL
from tools.fingerprint import fingerprint

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "backupd" / "recovery" / SCRIPT
GOLDEN = ROOT / "tests" / "golden"
FORMAT_1 = json.loads((GOLDEN / "format-1" / "expected.json").read_text())
FORMAT_2 = json.loads((GOLDEN / "format-2" / "expected.json").read_text())

# Isolated, without site-packages: neither backupd nor anything that it depends on can be imported.
BARE = [sys.executable, "-I", "-S"]
EMPTY = {"PATH": "/usr/local/bin:/usr/bin:/bin"}


@pytest.fixture(scope="module", autouse=True)
def _programs() -> None:
    need("age", "zstd")


def recover(*arguments: str | Path, code: int = 0, python: Sequence[str] = BARE) -> subprocess.CompletedProcess[bytes]:
    command = [*python, *map(str, arguments)]
    done = subprocess.run(command, env=EMPTY, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    assert done.returncode == code, done.stderr.decode()
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    return done


def extracted(tar: bytes, target: Path) -> dict[bytes, dict[str, object]]:
    target.mkdir(parents=True)
    command = ["tar", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf", "-", "-C", str(target)]
    subprocess.run(command, input=tar, check=True)
    return fingerprint(target)


def test_the_environment_is_bare() -> None:
    for module in ("backupd", "blake3", "zstandard", "pyrage", "msgspec"):
        done = subprocess.run([*BARE, "-c", f"import {module}"], env=EMPTY, capture_output=True, check=False)
        assert b"ModuleNotFoundError" in done.stderr


def test_it_is_python_3_8_of_the_standard_library() -> None:
    tree = ast.parse(PROGRAM.read_text(), feature_version=(3, 8))
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [str(node.module)]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported - {"blake3"} <= sys.stdlib_module_names


@pytest.mark.parametrize("snapshot", FORMAT_1)
def test_format_1(snapshot: str, tmp_path: Path) -> None:
    store = GOLDEN / "format-1" / "store"
    manifest = json.loads((store / "snapshots" / f"{snapshot}.json").read_text())
    done = recover(PROGRAM, "--repository", store, "tar", snapshot[:8], manifest["archives"][0]["volume"])
    assert comparable(jsonable(extracted(done.stdout, tmp_path / "out"))) == comparable(FORMAT_1[snapshot])


@pytest.mark.parametrize("key", ["age.txt", "ed25519", "rsa"])
@pytest.mark.parametrize("snapshot", FORMAT_2)
def test_format_2(snapshot: str, key: str, tmp_path: Path) -> None:
    store = GOLDEN / "format-2" / "store"
    identity = tmp_path / "key"
    shutil.copy(GOLDEN / "format-2" / "keys" / key, identity)
    identity.chmod(0o600)
    keys = FORMAT_2[snapshot]["keys"]
    fits = not keys or key.removesuffix(".txt") in keys
    done = recover(
        PROGRAM, "--repository", store, "--identity", identity, "tar", snapshot, "data", code=0 if fits else 12
    )
    if fits:
        assert comparable(jsonable(extracted(done.stdout, tmp_path / "out"))) == comparable(FORMAT_2[snapshot]["tree"])


def test_lists(tmp_path: Path) -> None:
    lines = recover(PROGRAM, "--repository", GOLDEN / "format-2" / "store", "list").stdout.decode().splitlines()
    assert [line.split()[0] for line in lines] == [snapshot[:12] for snapshot in sorted(FORMAT_2, reverse=True)]
    assert "readable by: age1" in lines[0]
    assert "readable by: everybody" in lines[1]
    recover(PROGRAM, "--repository", tmp_path, "list", code=1)


def test_a_secret_key_behind_a_passphrase(tmp_path: Path) -> None:
    """The age program asks on the terminal, once, however many chunks there are."""
    out = tmp_path / "out.tar"
    identity = GOLDEN / "format-2" / "keys" / "age-passphrase.txt"
    latest = max(FORMAT_2)
    command = [*BARE, str(PROGRAM), "--repository", str(GOLDEN / "format-2" / "store"), "--identity", str(identity)]
    child, terminal = pty.fork()
    if child == 0:
        os.execve(BARE[0], [*command, "tar", latest, "data", "-o", str(out)], EMPTY)
    said = b""
    typed = 0
    try:
        while piece := os.read(terminal, 1024):
            said += piece
            if said.count(b"assphrase") > typed:
                typed += 1
                os.write(terminal, PASSPHRASE.encode() + b"\n")
    except OSError:  # the other end is closed
        pass
    _, status = os.waitpid(child, 0)
    os.close(terminal)
    assert status == 0, said
    assert said.count(b"Enter passphrase") == 1
    assert out.stat().st_mode & 0o777 == 0o600
    assert comparable(jsonable(extracted(out.read_bytes(), tmp_path / "x"))) == comparable(FORMAT_2[latest]["tree"])


def test_from_the_repository_itself(tmp_path: Path) -> None:
    """As RECOVERY.md has it: the copy in the repository, an incremental archive, encrypted, volume by volume."""
    key = pair()
    machine = Machine(tmp_path / "state")
    place = Place(tmp_path, stores=[LocalStore("one", tmp_path / "store")])
    use(place, machine.security([key.public]))
    fill(place.root())
    (place.root() / "big").write_bytes(os.urandom(20 << 20))
    first = place.backup().manifest
    before = fingerprint(place.root())
    with (place.root() / "big").open("ab") as file:
        file.write(os.urandom(1 << 20))
    second = place.backup().manifest
    assert not second.archives[0].full
    # Records of drills and checks, and what a later version may put beside them, are nothing to it.
    keep_findings(
        place.repository(), second, [Finding(second.id, "data")], Look(place.clock.now(), "sizes"), place.runtime
    )
    for other in (f"drills/{second.id}/20261101T030000Z-00000000.json", "later/thing", f"snapshots/{second.id}.later"):
        place.stores[0].put(other, b"whatever")
    (tmp_path / "key").write_text(key.secret)
    program = tmp_path / "store" / SCRIPT
    assert program.read_bytes() == PROGRAM.read_bytes()
    assert "recover.py tar ID VOLUME" in (tmp_path / "store" / GUIDE).read_text()
    for name, expected in ((first.short_id, before), ("latest", fingerprint(place.root()))):
        done = recover(program, "--identity", tmp_path / "key", "tar", name, "data")
        assert extracted(done.stdout, tmp_path / f"out {name}") == expected
    assert b"whole; checked:" in done.stderr
    for arguments in (["tar", "nothing", "data"], ["tar", "latest", "other"]):
        recover(program, "--identity", tmp_path / "key", *arguments, code=1)
    recover(program, "tar", "latest", "data", code=12)
    recover(program, "--identity", tmp_path / "store" / GUIDE, "tar", "latest", "data", code=12)
    (tmp_path / "wrong").write_text(pair().secret)
    assert b"no identity matched" in recover(
        program, "--identity", tmp_path / "wrong", "tar", "latest", "data", "-o", tmp_path / "no.tar", code=12
    ).stderr  # fmt: skip
    assert not list(tmp_path.glob("no.tar*"))


@pytest.mark.parametrize("sealed", [True, False])
def test_damage(sealed: bool, tmp_path: Path) -> None:
    """Whatever object is hit: what comes out with exit code 0 is what went in."""
    key = pair()
    place = Place(tmp_path, stores=[LocalStore("one", tmp_path / "store")])
    use(place, Machine(tmp_path / "state").security([key.public] if sealed else []))
    Repository.open_or_create(
        place.stores[0], threads=2, now=place.clock.now(), new_id=place.runtime.new_id, chunker=SMALL,
        security=place.runtime.security,
    )  # fmt: skip
    dice = random.Random(3)
    place.root().mkdir(parents=True)
    (place.root() / "a").write_bytes(dice.randbytes(80_000) + b"text\n" * 10_000)
    for codec in ("zstd", "gzip"):
        place.compression = Compression(codec)
        (place.root() / codec).write_bytes(dice.randbytes(30_000))
        manifest = place.backup().manifest
    (tmp_path / "key").write_text(key.secret)
    command = [str(tmp_path / "store" / SCRIPT), "--identity", str(tmp_path / "key"), "tar", manifest.id, "data"]
    whole = recover(*command).stdout
    for ref in [ref for ref in manifest.archives[0].objects if ref.key != manifest.archives[0].files.key]:
        path = tmp_path / "store" / ref.key
        data = path.read_bytes()
        path.chmod(0o600)
        for at in [dice.randrange(len(data)) for _ in range(4)]:
            path.write_bytes(data[:at] + bytes([data[at] ^ 16]) + data[at + 1 :])
            done = subprocess.run([*BARE, *command], env=EMPTY, capture_output=True, check=False)
            assert done.returncode in {12, 13} or done.stdout == whole, (ref.key, at)
            assert done.returncode != 12 or ref == manifest.archives[0].index  # a header that fits no key any more
            assert b"Traceback" not in done.stderr, done.stderr.decode()
        path.write_bytes(data[:-1])
        recover(*command, code=13)
        path.unlink()
        assert b"is missing" in recover(*command, code=13).stderr
        path.write_bytes(data)
    assert recover(*command).stdout == whole


def test_hashes_are_compared_where_they_can_be(tmp_path: Path) -> None:
    """With the module blake3, what no checksum covers is found as well: uncompressed chunks."""
    store = tmp_path / "store"
    shutil.copytree(GOLDEN / "format-1" / "store", store)
    (raw,) = (store / "archives" / "raw").glob("*.tar")
    command = [str(PROGRAM), "--repository", str(store), "tar", raw.stem, "raw"]
    python = [sys.executable, "-I"]
    assert b"BLAKE3 of chunks" in recover(*command, python=python).stderr
    assert b"no BLAKE3" in recover(*command).stderr or shutil.which("b3sum")
    data = raw.read_bytes()
    raw.chmod(0o600)
    raw.write_bytes(data[:5000] + bytes([data[5000] ^ 1]) + data[5001:])
    assert b"is not what was written" in recover(*command, python=python, code=13).stderr


def test_the_age_program_reads_all_that_we_encrypt(tmp_path: Path) -> None:
    key = pair()
    (tmp_path / "key").write_text(key.secret)
    place = Place(tmp_path, stores=[LocalStore("one", tmp_path / "store")])
    use(place, Machine(tmp_path / "state").security([key.public]))
    fill(place.root())
    archive = place.backup().manifest.archives[0]
    for ref in (archive.index, archive.files):
        command = f"age -d -i key store/{ref.key} | zstd -dc"
        done = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, check=True)
        assert done.stdout.startswith(b'{"kind":')
        assert not done.stderr


def test_we_read_what_the_age_program_encrypts(tmp_path: Path) -> None:
    one, other = pair(), pair()
    sealed = subprocess.run(
        ["age", "-r", one.public, "-r", other.public], input=b"by age" * 50_000, capture_output=True, check=True
    ).stdout
    assert one.identities.decrypt(sealed, "it") == b"by age" * 50_000
    assert b"".join(other.identities.stream([sealed], "it")) == b"by age" * 50_000
    subprocess.run(["age-keygen", "-o", tmp_path / "key"], capture_output=True, check=True)
    from backupd.crypto import parse_identities  # noqa: PLC0415

    identities = parse_identities((tmp_path / "key").read_bytes(), "key", nobody)
    public = (tmp_path / "key").read_text().split("public key: ")[1].split()[0]
    assert identities.decrypt(Recipients([public]).encrypt(b"x"), "it") == b"x"
    assert pyrage.x25519.Recipient.from_str(public)


def test_installed_when_absent_older_or_altered() -> None:
    store, notes = MemoryStore("one"), list[str]()
    install(store, notes.append)
    ours = {key: store.read(key) for key in (SCRIPT, GUIDE)}
    assert all(b"backupd-recover " in content[:200] for content in ours.values())
    for there, stays in ((b"# backupd-recover 0\nold", False), (b"# backupd-recover 99\nnew", True), (b"odd", False)):
        store.delete(SCRIPT)
        store.put(SCRIPT, there)
        install(store, notes.append)
        assert store.read(SCRIPT) == (there if stays else ours[SCRIPT])
    assert notes == []
    store.delete(SCRIPT)
    store.put(SCRIPT, ours[SCRIPT] + b"import evil\n")
    install(store, notes.append)
    assert store.read(SCRIPT) == ours[SCRIPT]
    assert notes == ["store one: recover.py had been altered, and is written again"]
