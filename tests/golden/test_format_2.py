"""A repository that was written when format 2 was settled: every later version reads it with any of its keys."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import msgspec
import pytest

from backupd.crypto import parse_identities
from backupd.errors import KeyMissing
from backupd.model import VolumeSpec
from backupd.repository import Encryption, Repository
from backupd.restore.operation import restore
from backupd.restore.target import RestoreRequest, plan_restore
from backupd.security import Security
from backupd.stores.local import LocalStore
from backupd.trust import Trust
from backupd.verify.verifier import Verifier
from tests.golden.make_format_1 import jsonable
from tests.golden.make_format_2 import PASSPHRASE
from tests.golden.test_format_1 import FORMAT, comparable
from tests.support.runtime import RecordingProgress, make_runtime
from tools.fingerprint import fingerprint

HERE = Path(__file__).parent / "format-2"
EXPECTED = json.loads((HERE / "expected.json").read_text())
FILES = {"age": "age.txt", "ed25519": "ed25519", "rsa": "rsa", "passphrase": "age-passphrase.txt"}


def opened(key: str, tmp_path: Path) -> Repository:
    shutil.copytree(HERE / "store", tmp_path / "store")
    signer = (HERE / "signer").read_text().strip()
    content = (HERE / "keys" / FILES[key]).read_bytes()
    identities = parse_identities(content, key, lambda: PASSPHRASE)
    security = Security(
        identities=lambda: identities,
        trust=Trust(tmp_path / "state", [signer], lambda: None, pytest.fail),
    )
    return Repository.open(LocalStore("golden", tmp_path / "store"), threads=2, security=security)


@pytest.mark.parametrize("key", ["age", "ed25519", "rsa"])
def test_read(key: str, tmp_path: Path) -> None:
    repository = opened(key, tmp_path)
    manifests, damaged = repository.snapshots()
    assert damaged == []
    assert {manifest.id for manifest in manifests} == EXPECTED.keys()
    for manifest in manifests:
        verifier = Verifier(repository, RecordingProgress(), 1.0, random.Random(0))
        keys = EXPECTED[manifest.id]["keys"]
        if keys and key not in keys:
            with pytest.raises(KeyMissing):
                list(verifier.verify([manifest]))
            continue
        assert [finding.problem for finding in verifier.verify([manifest])] == [None]
        known = repository.opened(manifest)
        assert known.host == "testhost"
        runtime = make_runtime(tmp_path / manifest.id / "state")
        target = tmp_path / manifest.id / "target"
        request = RestoreRequest(into=VolumeSpec("--to-dir", path=str(target)), safety_snapshot=False)
        restore(plan_restore(request, known, repository, runtime, {}), request, repository, runtime)
        assert comparable(jsonable(fingerprint(target))) == comparable(EXPECTED[manifest.id]["tree"])


def test_identity_behind_a_passphrase(tmp_path: Path) -> None:
    repository = opened("passphrase", tmp_path)
    manifest = repository.resolve("latest")
    assert repository.opened(manifest).host == "testhost"


def test_kinds(tmp_path: Path) -> None:
    manifests, _ = opened("age", tmp_path).snapshots()
    archives = [manifest.archives[0] for manifest in reversed(manifests)]
    assert [archive.full for archive in archives] == [True, False, True, True]
    suffixes = [{"".join(Path(ref.key).suffixes) for ref in archive.needs} for archive in archives]
    assert suffixes == [{".tar.zst.age"}, {".tar.zst.age", ".tar.gz.age"}, {".tar.zst"}, {".tar.age"}]


def test_every_field_is_described() -> None:
    text = FORMAT.read_text()
    assert all(f"`{name}`" in text for name in msgspec.structs.asdict(Encryption(recipients=[])))
