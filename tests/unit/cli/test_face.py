"""Where there is no terminal: what is shown, and what happens when it can't be written."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import TextIO

import pytest

from backupd.cli.face import Face, Plain, face_of
from backupd.cli.terminal import BarProgress


@pytest.fixture(autouse=True)
def nobody_asks_for_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)


@contextmanager
def unread_pipe() -> Iterator[TextIO]:
    end, start = os.pipe()
    os.close(end)
    with os.fdopen(start, "w") as stream:
        yield stream


def shown(face: Face, stream: StringIO) -> str:
    face.line(("error: ", "bold red"), ("a\tb\a[red]c", ""))
    face.table(["NAME", "SIZE"], [["one", "5"], ["three", "1234"]], ["SIZE"])
    return stream.getvalue()


def test_lines_and_tables_are_plain() -> None:
    stream = StringIO()
    face = face_of(stream, vital=True)
    assert not face.is_terminal
    assert shown(face, stream) == "error: a\tb[red]c\nNAME   SIZE\none       5\nthree  1234\n"


def test_a_terminal_that_is_said_to_be_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "0")
    stream = StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    assert isinstance(face_of(stream, vital=True), Plain)


@pytest.mark.parametrize("variable", ["FORCE_COLOR", "TTY_COMPATIBLE"])
def test_colours_where_they_are_asked_for(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "1")
    monkeypatch.setenv("TERM", "xterm")
    stream = StringIO()
    assert "\x1b[1;31merror: \x1b[0m" in shown(face_of(stream, vital=True), stream)


def test_a_closed_stream_takes_everything() -> None:
    face_of(None, vital=True).line(("x", ""))


def test_what_is_vital_has_to_be_written() -> None:
    with pytest.raises(OSError, match="No space left"), Path("/dev/full").open("w") as full:
        face_of(full, vital=True).line(("x", ""))
    with pytest.raises(BrokenPipeError), unread_pipe() as stream:
        face_of(stream, vital=True).line(("x", ""))


@pytest.mark.parametrize("colours", ["", "1"])
@pytest.mark.parametrize("stderr", ["/dev/full", "a pipe"])
def test_what_is_not_vital_ends_nothing(monkeypatch: pytest.MonkeyPatch, stderr: str, colours: str) -> None:
    """Not even at exit, where Python would write what it has kept back."""
    monkeypatch.setenv("FORCE_COLOR", colours)
    with Path(stderr).open("w") if stderr == "/dev/full" else unread_pipe() as stream:
        command = [sys.executable, "-c", PROGRAM + GIVEN_UP, "log"]
        said = subprocess.run(command, stdout=subprocess.PIPE, stderr=stream, check=False)
    assert said.returncode == 0
    assert b"one" in said.stdout


def test_a_terminal_that_hangs_up_ends_nothing() -> None:
    terminal, end = pty.openpty()
    with os.fdopen(end, "w") as stream:
        face = face_of(stream, vital=False)
        assert face.is_terminal
        progress = face.progress(lambda text: face.line((text, "")))
        assert isinstance(progress, BarProgress)
        progress.begin("reading", 10)
        os.close(terminal)
        progress.advance(5)
        face.line(("x", ""))
        progress.end()


GIVEN_UP = """
from backupd.cli.main import _give_up_stderr
_give_up_stderr()
"""

PROGRAM = """
from backupd.cli.output import Output
output = Output(json=False)
import sys
output.table(["NAME", "SIZE"], [["one", "5"]], ["SIZE"])
output.warn("careful")
from loguru import logger
from backupd.log import configure
class Options: level, format = "warning", "text"
if len(sys.argv) > 1:
    configure(Options)
    logger.warning("in the log")
print("rich" in sys.modules)
"""


def test_rich_is_loaded_for_terminals_only() -> None:
    command = [sys.executable, "-c", PROGRAM]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (said.stdout, said.stderr) == ("NAME  SIZE\none      5\nFalse\n", "warning: careful\n")
    terminal, end = pty.openpty()
    with os.fdopen(terminal, "rb", buffering=0) as reader:
        subprocess.run(command, stdout=end, stderr=end, check=True, env={**os.environ, "TERM": "xterm"})
        seen = reader.read(65536)
        os.close(end)
    assert b"\x1b[33mwarning: careful\x1b[0m" in seen
    assert b"\x1b[1mNAME" in seen
    assert seen.endswith(b"True\r\n")
