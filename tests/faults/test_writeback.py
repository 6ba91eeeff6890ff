"""What flushes beside a restore ends with it, however that ends, and changes nothing of what is said about it."""

from __future__ import annotations

import contextlib
import os
import signal
import tarfile
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from backupd.engine.writeback import PAUSE_SECONDS
from backupd.errors import SourceError
from backupd.model import MIB, TarReport
from backupd.ports import TarInput
from tests.support.daemon import wait_until
from tests.support.engines import EngineUnderTest
from tests.support.tars import python_tar

PADDING = bytes(2 * MIB)


def some_tar() -> bytes:
    return python_tar((tarfile.TarInfo(name), bytes(MIB)) for name in ("a", "b"))


@pytest.fixture
def flushers(engine: EngineUnderTest, request: pytest.FixtureRequest) -> Callable[[], list[str]]:
    """What flushes now: a thread of this process, or the pause of a helper's loop."""
    if engine.name == "mounted":
        return lambda: [thread.name for thread in threading.enumerate() if thread.name == "write-back"]
    client = request.getfixturevalue("docker_client")
    return lambda: [" ".join(words) for words in processes(client) if words[-2:] == ["sleep", str(PAUSE_SECONDS)]]


def processes(client: Any) -> list[list[str]]:
    """The command lines in all helpers."""
    found: list[list[str]] = []
    for helper in client.containers.list(filters={"label": ["backupd.job"]}):
        found += [process[-1].split() for process in helper.top(ps_args="-o pid,args")["Processes"]]
    return found


def test_while_it_is_extracted(engine: EngineUnderTest, flushers: Callable[[], list[str]]) -> None:
    volume, root = engine.new()
    stream = some_tar()
    with engine.engine.tar_in(volume, "new", kept=True) as target:
        target.write(stream[:MIB])
        wait_until(lambda: flushers() != [], "nothing flushes")
        target.write(stream[MIB:])
        assert target.finish() == TarReport()
    wait_until(lambda: flushers() == [], "it goes on")
    assert (root / "new/b").stat().st_size == MIB


def test_not_for_what_is_thrown_away(engine: EngineUnderTest, flushers: Callable[[], list[str]]) -> None:
    volume, _ = engine.new()
    with engine.engine.tar_in(volume) as target:
        deadline = time.monotonic() + 3 * PAUSE_SECONDS
        while time.monotonic() < deadline:
            assert flushers() == []
        target.write(some_tar())
        target.finish()


def broken_off(target: TarInput) -> None:
    target.write(some_tar()[:MIB])


def no_archive(target: TarInput) -> None:
    target.write(b"neither a header nor anything else" * 100_000)


@pytest.mark.parametrize("what", [broken_off, no_archive])
def test_a_tar_that_fails(
    engine: EngineUnderTest, flushers: Callable[[], list[str]], what: Callable[[TarInput], None]
) -> None:
    said = []
    for kept in (False, True):
        volume, _ = engine.new()
        with pytest.raises(SourceError) as caught, engine.engine.tar_in(volume, "new", kept=kept) as target:  # noqa: PT012
            time.sleep(2 * PAUSE_SECONDS)
            what(target)
            target.finish()
        said.append(str(caught.value).replace(volume.source, "it"))
    assert said[0] == said[1]
    wait_until(lambda: flushers() == [], "it goes on")


def test_a_caller_that_gives_up(engine: EngineUnderTest, flushers: Callable[[], list[str]]) -> None:
    volume, _ = engine.new()
    with contextlib.suppress(KeyboardInterrupt), engine.engine.tar_in(volume, kept=True) as target:
        target.write(some_tar()[:MIB])
        wait_until(lambda: flushers() != [], "nothing flushes")
        raise KeyboardInterrupt
    wait_until(lambda: flushers() == [], "it goes on")


def test_a_tar_that_is_killed(
    engine: EngineUnderTest, flushers: Callable[[], list[str]], request: pytest.FixtureRequest
) -> None:
    volume, _ = engine.new()
    with engine.engine.tar_in(volume, kept=True) as target:
        target.write(some_tar()[:MIB])
        wait_until(lambda: flushers() != [], "nothing flushes")
        kill_tar(engine, target, request)
        with pytest.raises(SourceError, match=r"killed by signal 9"):  # noqa: PT012
            for _ in range(100):
                target.write(PADDING)
            target.finish()
    wait_until(lambda: flushers() == [], "it goes on")


def kill_tar(engine: EngineUnderTest, target: TarInput, request: pytest.FixtureRequest) -> None:
    if engine.name == "mounted":
        os.kill(target._process.pid, signal.SIGKILL)  # type: ignore[attr-defined]
        return
    (helper,) = request.getfixturevalue("docker_client").containers.list(filters={"label": ["backupd.job"]})
    kill = 'for p in /proc/[0-9]*; do case $(tr "\\0" " " <$p/cmdline) in "tar "*) kill -9 "${p#/proc/}" ;; esac; done'
    assert helper.exec_run(["sh", "-c", kill]).exit_code in {0, 137}  # with the container, which tar's end ends
