"""What is extracted is written to disk meanwhile, and what does that ends with the job."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from backupd.engine import writeback
from backupd.engine.docker.scripts import IN_BY_ATTACH, KEPT
from backupd.engine.writeback import LONG_SECONDS, PAUSE_SECONDS, WriteBack
from tests.support.daemon import wait_until

SOME_PAUSES = 5 * PAUSE_SECONDS


class Shell:
    """Runs the script of a helper where nobody kills what it leaves behind, with a `sync` of the test's."""

    def __init__(self, directory: Path) -> None:
        self.programs = directory / "bin"
        self.programs.mkdir()
        self.volume = directory / "volume"
        self.volume.mkdir()
        self.calls = directory / "calls"
        self.calls.touch()
        for name in ("cat", "mkdir", "sh", "sleep"):
            (self.programs / name).symlink_to(shutil.which(name) or name)

    def program(self, name: str, text: str) -> None:
        path = self.programs / name
        path.unlink(missing_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def sync(self, text: str = "") -> None:
        self.program("sync", f'echo "$*" >>{self.calls}\n{text}')

    def flushes(self) -> list[str]:
        """The calls but for the first, whether it knows files."""
        return self.calls.read_text().splitlines()[1:]

    @contextmanager
    def run(self, job: str, kept: str = KEPT) -> Iterator[subprocess.Popen[bytes]]:
        """Whatever is left of it in the end is killed, and the test fails."""
        command = ["/bin/sh", "-c", IN_BY_ATTACH, "sh", "nonce", str(self.volume / "new"), kept, "sh", "-c", job]
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.volume,
            env={"PATH": str(self.programs), "LC_ALL": "C"},
            process_group=0,
        )
        with process:
            try:
                yield process
                wait_until(lambda: members(process.pid) == [], "the end of all processes")
            finally:
                if members(process.pid):
                    os.killpg(process.pid, signal.SIGKILL)


def members(group: int) -> Sequence[str]:
    """The processes of a group that have not ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = path.read_text().rpartition(")")
        except (FileNotFoundError, ProcessLookupError):
            continue
        state, _, its_group = rest.split()[:3]
        if int(its_group) == group and state != "Z":
            found.append(name)
    return found


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


class TestScript:
    def test_flushes_while_the_job_runs(self, shell: Shell) -> None:
        shell.sync()
        with shell.run("cat >/dev/null; echo words >&2; exit 3") as process:
            wait_until(lambda: len(shell.flushes()) >= 2, "a flush")
            out, err = process.communicate()
        assert (process.returncode, out, err) == (3, b"BACKUPD-END nonce 3\n", b"words\n")
        assert set(shell.flushes()) == {"-f ."}
        seen = len(shell.flushes())
        time.sleep(SOME_PAUSES)
        assert len(shell.flushes()) == seen

    def test_only_for_what_is_kept(self, shell: Shell) -> None:
        shell.sync()
        with shell.run(f"sleep {SOME_PAUSES}", kept="") as process:
            assert process.communicate()[0] == b"BACKUPD-END nonce 0\n"
        assert shell.flushes() == []

    @pytest.mark.parametrize(
        ("sync", "flushes"),
        [
            ("echo ignoring all arguments >&2", 0),  # BusyBox without `sync -f`
            ("echo unknown option >&2; exit 1", 0),
            (f"sleep {LONG_SECONDS + 1.1}", 1),
            (None, 0),
        ],
    )
    def test_ends_by_itself(self, shell: Shell, sync: str | None, flushes: int) -> None:
        if sync is not None:
            shell.sync(sync)
        with shell.run("exec cat >/dev/null") as process:
            wait_until(lambda: len(members(process.pid)) == 2, "the script and its job")
            assert len(shell.flushes()) == flushes
            out, err = process.communicate()
        assert (process.returncode, out, err) == (0, b"BACKUPD-END nonce 0\n", b"")

    def test_a_disk_that_did_not_take_something(self, shell: Shell) -> None:
        """It is told once."""
        shell.sync(f'[ "$(wc -l <{shell.calls})" -ne 3 ] || {{ echo Input/output error >&2; exit 1; }}')
        (shell.programs / "wc").symlink_to(shutil.which("wc") or "wc")
        with shell.run("exec cat >/dev/null") as process:
            wait_until(lambda: len(members(process.pid)) == 2, "the script and its job")
            out, err = process.communicate()
        assert (process.returncode, out) == (2, b"BACKUPD-END nonce 2\n")
        assert err == b"what was extracted did not reach the disk\n"
        assert len(shell.flushes()) == 2

    def test_a_sleep_that_knows_no_fractions(self, shell: Shell) -> None:
        shell.sync()
        shell.program("sleep", "echo invalid number >&2; exit 1")
        with shell.run("exec cat >/dev/null") as process:
            wait_until(lambda: len(members(process.pid)) == 2, "the script and its job")
            assert process.communicate()[1] == b""
        assert shell.flushes() == []

    def test_does_not_hold_the_streams(self, shell: Shell) -> None:
        """A job that is gone is a broken pipe to whoever writes, and the end to whoever reads, flush or no flush."""
        shell.sync("exec sleep 3")
        with shell.run("exec sleep 600") as process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stderr is not None
            wait_until(lambda: shell.flushes() != [], "a flush")
            began = time.monotonic()
            (job,) = [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
                      if Path(f"/proc/{pid}/cmdline").read_text() == "sleep\x00600\x00"]  # fmt: skip
            process.kill()
            os.kill(job, signal.SIGKILL)
            assert process.stdout.read() == process.stderr.read() == b""
            with pytest.raises(BrokenPipeError):
                os.write(process.stdin.fileno(), bytes(1 << 20))
            assert time.monotonic() - began < 2


class TestThread:
    @pytest.fixture
    def flushes(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        monkeypatch.setattr(writeback, "PAUSE_SECONDS", 0.01)
        found: list[int] = []

        def flush(descriptor: int) -> int:
            found.append(os.fstat(descriptor).st_ino)
            return 0

        monkeypatch.setattr(writeback, "_error_of_flush", flush)
        return found  # the first is before it begins

    @pytest.fixture
    def directory(self, tmp_path: Path) -> Iterator[int]:
        """In the end it is open once, which is here."""
        descriptor = os.open(tmp_path, os.O_RDONLY)
        yield descriptor
        wait_until(lambda: threads() == [], "the end of the thread")
        assert [path for path in Path("/proc/self/fd").iterdir() if leads_to(path, tmp_path)] == [
            Path(f"/proc/self/fd/{descriptor}")
        ]
        os.close(descriptor)

    def test_until_it_is_stopped(self, directory: int, flushes: list[int]) -> None:
        write_back = WriteBack(directory)
        wait_until(lambda: len(flushes) >= 4, "a flush")
        assert threads() != []
        write_back.stop()
        write_back.stop()
        wait_until(lambda: threads() == [], "the end of the thread")
        assert set(flushes) == {os.fstat(directory).st_ino}

    @pytest.mark.parametrize(("long", "unknown"), [(-1, 0), (1, errno.ENOSYS)])
    def test_one_and_the_last_where_it_takes_long_or_is_unknown(
        self, directory: int, flushes: list[int], monkeypatch: pytest.MonkeyPatch, long: int, unknown: int
    ) -> None:
        flush = writeback._error_of_flush
        monkeypatch.setattr(writeback, "_error_of_flush", lambda descriptor: flush(descriptor) or unknown)
        monkeypatch.setattr(writeback, "LONG_SECONDS", long)
        write_back = WriteBack(directory)
        wait_until(lambda: len(flushes) == 2, "a flush")
        time.sleep(0.2)
        assert len(flushes) == 2
        write_back.finish()
        write_back.finish()
        assert len(flushes) == 3
        assert threads() == []

    @pytest.mark.parametrize("number", [errno.EIO, errno.ENODATA])
    @pytest.mark.parametrize("told", [2, 3])
    def test_what_is_lost_is_told(
        self, directory: int, flushes: list[int], monkeypatch: pytest.MonkeyPatch, told: int, number: int
    ) -> None:
        """Meanwhile, or by the last flush."""
        self.losing(monkeypatch, flushes, told, number)
        write_back = WriteBack(directory)
        wait_until(lambda: len(flushes) == 2, "a flush")
        with pytest.raises(OSError, match=os.strerror(number)):
            write_back.finish()

    def test_what_was_lost_before_is_not(
        self, directory: int, flushes: list[int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.losing(monkeypatch, flushes, 1, errno.EIO)
        WriteBack(directory).finish()
        assert len(flushes) >= 2

    @staticmethod
    def losing(monkeypatch: pytest.MonkeyPatch, flushes: list[int], told: int, number: int) -> None:
        """One of the flushes tells of a loss. There are three: before, one meanwhile that takes long, and the last."""
        flush = writeback._error_of_flush
        monkeypatch.setattr(
            writeback, "_error_of_flush", lambda descriptor: flush(descriptor) or number * (len(flushes) == told)
        )
        monkeypatch.setattr(writeback, "LONG_SECONDS", -1)

    def test_the_call(self, directory: int) -> None:
        assert writeback._error_of_flush(directory) == 0
        assert writeback._error_of_flush(-1) == errno.EBADF


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "write-back"]


def leads_to(link: Path, target: Path) -> bool:
    try:
        return link.readlink() == target
    except FileNotFoundError:
        return False
