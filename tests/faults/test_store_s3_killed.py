"""Processes killed in a multipart upload: their machine aborts what they left at once, and nothing that is others'."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import asdict

from backupd.errors import SourceError, StoreDenied
from backupd.recover import recover_stores
from backupd.stores.s3 import S3Options, S3Store
from backupd.stores.s3.claims import Claims
from backupd.wiring import SystemClock
from tests.support import s3_proxy
from tests.support.runtime import make_runtime
from tests.support.s3 import MIB, S3Server
from tests.support.s3_proxy import Action, Answer, CutAnswer, Request, times

pytestmark = pytest.mark.s3

ROOT = Path(__file__).parents[2]
WRITER = """
import json, os, signal, sys, time
from pathlib import Path
from backupd.stores.s3 import S3Options, S3Store
from backupd.stores.s3.claims import Claim
from backupd.wiring import SystemClock
given = json.loads(sys.argv[1])
die = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
if given["dies"] == "before the id is known":
    Claim.begun = die
store = S3Store("test", S3Options(**given["options"]), SystemClock(), claims=Path(given["claims"]))
writer = store.create("archives/a")
for _ in range(12):
    writer.write(os.urandom(1 << 20))
print("ready", flush=True)
if given["dies"] == "in the middle":
    die()
time.sleep(600)
"""


def spawn(options: S3Options, claims: Path, dies: str) -> subprocess.Popen[bytes]:
    given = json.dumps({"options": asdict(options), "claims": str(claims), "dies": dies})
    return subprocess.Popen([sys.executable, "-c", WRITER, given], cwd=ROOT, stdout=subprocess.PIPE)


def unfinished(store: S3Store) -> list[str]:
    return [key for key, _, _ in store._unfinished()]


@pytest.mark.parametrize("dies", ["in the middle", "before the id is known"])
def test_only_this_machine_s_dead(seaweedfs_s3: S3Server, tmp_path: Path, dies: str) -> None:
    options = seaweedfs_s3.options()
    now = datetime.now(UTC)
    here = S3Store("test", options, SystemClock(), claims=tmp_path / "claims")
    elsewhere = S3Store("test", options, SystemClock(), claims=tmp_path / "of another machine")
    alive = spawn(options, tmp_path / "claims", "never")
    try:
        assert alive.stdout is not None
        assert alive.stdout.readline() == b"ready\n"
        dead = spawn(options, tmp_path / "claims", dies)
        dead.communicate(timeout=300)
        assert dead.returncode == -9
        assert unfinished(here) == ["archives/a"] * 2
        assert elsewhere.remove_stale_uploads(None, now) == ()
        (removed,) = here.remove_stale_uploads(None, now)
        assert "of archives/a" in removed
        assert unfinished(here) == ["archives/a"]
        assert here.remove_stale_uploads(None, now) == ()
        assert len(list((tmp_path / "claims").iterdir())) == 1
    finally:
        alive.kill()
        alive.communicate()
    (said,) = recover_stores(make_runtime(tmp_path / "state"), [here])
    assert "removed an unfinished upload" in said.outcome
    assert unfinished(here) == []
    assert list((tmp_path / "claims").iterdir()) == []
    here.close()
    elsewhere.close()


def test_one_that_is_just_being_begun_is_not_taken_for_a_dead_one_s(seaweedfs_s3: S3Server, tmp_path: Path) -> None:
    """A copy that was killed is made again: the same key, by a process that does not know its upload's id yet."""
    options, now = seaweedfs_s3.options(), datetime.now(UTC)
    store = S3Store("test", options, SystemClock(), claims=tmp_path / "claims")
    dead = spawn(options, tmp_path / "claims", "before the id is known")
    dead.communicate(timeout=300)
    living = Claims(tmp_path / "claims", options).claim("archives/a")
    assert store.remove_stale_uploads(None, now) == []
    assert store.remove_stale_uploads(timedelta(days=-1), now) == []
    assert unfinished(store) == ["archives/a"]
    living.begun("another")
    assert len(store.remove_stale_uploads(None, now)) == 1
    living.close(keep=False)
    assert list((tmp_path / "claims").iterdir()) == []
    store.close()


def test_what_ended_leaves_no_claim(seaweedfs_s3: S3Server, tmp_path: Path) -> None:
    store = S3Store("test", seaweedfs_s3.options(), SystemClock(), claims=tmp_path / "claims")
    with store.create("whole") as writer:
        writer.write(os.urandom(11 * MIB))
        assert len(list((tmp_path / "claims").iterdir())) == 1
        writer.commit()
    with store.create("given up") as writer:
        writer.write(os.urandom(11 * MIB))
    assert list((tmp_path / "claims").iterdir()) == []
    assert unfinished(store) == []
    store.close()


def test_an_upload_that_could_not_be_aborted_is_later(seaweedfs_s3: S3Server, tmp_path: Path) -> None:
    """Also by a process that lives: its claim says that nobody is at it."""
    with s3_proxy.running(seaweedfs_s3.endpoint_url) as proxy:
        store = S3Store(
            "test", seaweedfs_s3.options(endpoint_url=proxy.endpoint_url), SystemClock(), claims=tmp_path / "claims"
        )
        store.facts()
        proxy.rules.append(lambda request: Answer(403, "AccessDenied") if request.method == "DELETE" else None)
        with pytest.raises(StoreDenied), store.create("a") as writer:
            writer.write(os.urandom(6 * MIB))
        assert unfinished(store) == ["a"]
        proxy.rules.clear()
        assert len(store.remove_stale_uploads(None, datetime.now(UTC))) == 1
        assert unfinished(store) == []
        assert list((tmp_path / "claims").iterdir()) == []
        store.close()


def test_a_beginning_whose_answer_was_lost(seaweedfs_s3: S3Server, tmp_path: Path) -> None:
    """The request was sent again, and the server has begun two uploads: the other one goes with the next look."""
    with s3_proxy.running(seaweedfs_s3.endpoint_url) as proxy:
        store = S3Store(
            "test", seaweedfs_s3.options(endpoint_url=proxy.endpoint_url), SystemClock(), claims=tmp_path / "claims"
        )
        store.facts()

        def lost(request: Request) -> Action | None:
            return CutAnswer(None) if request.method == "POST" and "uploads" in request.path else None

        proxy.rules.append(times(1, lost))
        with store.create("a") as writer:
            writer.write(os.urandom(6 * MIB))
            assert unfinished(store) == ["a", "a"]
            assert store.remove_stale_uploads(None, datetime.now(UTC)) == ()
            writer.commit()
        assert unfinished(store) == ["a"]
        assert len(store.remove_stale_uploads(None, datetime.now(UTC))) == 1
        assert unfinished(store) == []
        assert list((tmp_path / "claims").iterdir()) == []
        assert store.stat("a").size == 6 * MIB
        store.close()


def test_claims_that_nobody_can_read_are_dropped(seaweedfs_s3: S3Server, tmp_path: Path) -> None:
    store = S3Store("test", seaweedfs_s3.options(), SystemClock(), claims=tmp_path / "claims")
    (tmp_path / "claims").mkdir()
    (tmp_path / "claims" / "torn").write_bytes(b'{"bucket":"b","ke')
    other = '{"bucket":"another","key":"a","upload":"u"}'
    (tmp_path / "claims" / "other").write_text(other)
    assert store.remove_stale_uploads(None, datetime.now(UTC)) == []
    assert [path.name for path in (tmp_path / "claims").iterdir()] == ["other"]
    store.close()


def test_without_a_place_for_claims_nothing_begins(
    seaweedfs_s3: S3Server, tmp_path: Path, make_s3_store: Callable[..., Any]
) -> None:
    (tmp_path / "file").touch()
    store = S3Store("test", seaweedfs_s3.options(), SystemClock(), claims=tmp_path / "file" / "claims")
    with pytest.raises(SourceError, match="cannot make"), store.create("a") as writer:
        writer.write(os.urandom(11 * MIB))
    assert unfinished(store) == []
    store.close()
