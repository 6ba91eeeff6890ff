"""A repository that was written when format 1 was settled: every later version lists, verifies and restores it."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from backupd.archive import ChunkerParameters
from backupd.archive.index import IndexHeader
from backupd.archive.member import Member
from backupd.browse import cat
from backupd.model import Tool, Volume, VolumeSpec
from backupd.repository import (
    Archive,
    Base,
    CheckRecord,
    Failure,
    Manifest,
    ObjectRef,
    Repository,
    RepositoryConfig,
    VolumeCheck,
)
from backupd.restore.operation import restore
from backupd.restore.target import RestoreRequest, plan_restore
from backupd.stores.local import LocalStore
from backupd.verify.verifier import Verifier
from tests.golden.make_format_1 import jsonable
from tests.support.runtime import RecordingProgress, make_runtime
from tools.fingerprint import fingerprint

HERE = Path(__file__).parent / "format-1"
EXPECTED: dict[str, dict[str, dict[str, object]]] = json.loads((HERE / "expected.json").read_text())
FORMAT = Path(__file__).parents[2] / "docs" / "FORMAT.md"


def tree() -> dict[str, str]:
    files = (path for path in (HERE / "store").rglob("*") if path.is_file())
    return {str(path.relative_to(HERE)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture
def repository() -> Iterator[Repository]:
    before = tree()
    yield Repository.open(LocalStore("golden", HERE / "store"), threads=2)
    assert tree() == before
    assert not (HERE / "store" / ".unfinished").exists()


def comparable(tree: dict[str, dict[str, object]]) -> dict[str, dict[str, object]]:
    """Only root can give files away, and then everything is compared."""
    if os.geteuid() == 0:
        return tree
    return {path: {name: fact for name, fact in facts.items() if name != "owner"} for path, facts in tree.items()}


def test_small() -> None:
    assert sum(path.stat().st_size for path in HERE.rglob("*") if path.is_file()) < 300 * 1024


def test_listed(repository: Repository) -> None:
    manifests, damaged = repository.snapshots()
    assert damaged == []
    assert {manifest.id for manifest in manifests} == EXPECTED.keys()
    archives = [manifest.archives[0] for manifest in reversed(manifests)]
    assert [archive.full for archive in archives] == [True, False, False, True, True]
    suffixes = [{"".join(Path(ref.key).suffixes) for ref in archive.needs} for archive in archives]
    assert suffixes == [{".tar.zst"}, {".tar.zst"}, {".tar.zst", ".tar.gz"}, {".tar.gz"}, {".tar"}]
    assert set(archives[0].features) == {"sparse", "xattr", "long-name", "nanoseconds"}


def test_verified(repository: Repository) -> None:
    findings = Verifier(repository, RecordingProgress(), 1.0, random.Random(0)).verify(repository.snapshots()[0])
    assert [finding.problem for finding in findings] == [None] * 5


@pytest.mark.parametrize("snapshot", EXPECTED)
def test_restored(repository: Repository, snapshot: str, tmp_path: Path) -> None:
    runtime = make_runtime(tmp_path / "state")
    request = RestoreRequest(into=VolumeSpec("--to-dir", path=str(tmp_path / "target")), safety_snapshot=False)
    restore(plan_restore(request, repository.load(snapshot), repository, runtime, {}), request, repository, runtime)
    assert comparable(jsonable(fingerprint(tmp_path / "target"))) == comparable(EXPECTED[snapshot])


@pytest.mark.parametrize("snapshot", EXPECTED)
def test_single_files(repository: Repository, snapshot: str) -> None:
    (archive,) = repository.load(snapshot).archives
    for name, facts in EXPECTED[snapshot].items():
        if "content" in facts:
            content = bytearray()
            cat(repository, archive, os.fsdecode(name.encode("latin-1")), content.extend)
            assert hashlib.sha256(content).hexdigest() == facts["content"]


def test_full_archives_are_ordinary_tars(repository: Repository, tmp_path: Path) -> None:
    for manifest in repository.snapshots()[0]:
        archive = manifest.archives[0]
        if archive.full:
            path = HERE / "store" / archive.needs[0].key
            listed = subprocess.run(["tar", "tf", path], check=True, capture_output=True).stdout
            assert len(listed.splitlines()) == archive.members


@pytest.mark.parametrize(
    "document",
    [
        RepositoryConfig,
        ChunkerParameters,
        CheckRecord,
        VolumeCheck,
        Manifest,
        Archive,
        Base,
        Failure,
        ObjectRef,
        Volume,
        Tool,
        IndexHeader,
        Member,
    ],
)
def test_every_field_is_described(document: type[msgspec.Struct]) -> None:
    text = FORMAT.read_text()
    missing = [name for name in document.__struct_fields__ if f"`{name}`" not in text and f'"{name}"' not in text]
    assert missing == []
