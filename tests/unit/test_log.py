"""What the log looks like, and what it leaves out."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loguru import logger

from backupd.log import MASK, Redactor, bound_process, bound_run, configure

SECRET = 'pa"ss\\word/é'


@dataclass(frozen=True)
class Options:
    level: str = "info"
    format: str = "text"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logger.remove()
    logger.configure(extra={}, patcher=lambda _: None)


def _configured(format_: str = "text", level: str = "info", stream: io.StringIO | None = None) -> io.StringIO:
    stream = stream or io.StringIO()
    configure(Options(level, format_), [SECRET, "token1234", ""], stream)
    return stream


def test_text() -> None:
    stream = _configured()
    logger.info("volume {} is done", "postgres")
    logger.bind(volume="redis").warning("{curly} and <red>tags</red> stay as they are")
    first, second = stream.getvalue().splitlines()
    assert first[19:] == " INFO    volume postgres is done"
    assert second[19:] == " WARNING {curly} and <red>tags</red> stay as they are volume=redis"


def test_json() -> None:
    stream = _configured("json")
    with bound_run("ab12"):
        logger.bind(volume="postgres", bytes=7).info("done\nand out")
    logger.info("later")
    first, second = map(json.loads, stream.getvalue().splitlines())
    time = first.pop("time")
    assert time.endswith("Z")
    assert first == {"level": "info", "message": "done\nand out", "run": "ab12", "volume": "postgres", "bytes": 7}
    assert "run" not in second


def test_all_threads_of_a_process_for_one_run() -> None:
    stream = _configured("json")
    bound_process("ab12")
    threads = [threading.Thread(target=logger.info, args=("done",)) for _ in range(2)]
    for thread in threads:
        thread.start()
        thread.join()
    assert [json.loads(line)["run"] for line in stream.getvalue().splitlines()] == ["ab12", "ab12"]


@pytest.mark.parametrize(
    ("format_", "stream", "is_json", "is_coloured"),
    [
        ("auto", io.StringIO, True, False),
        ("auto", Terminal, False, True),
        ("text", io.StringIO, False, False),
        ("text", Terminal, False, True),
        ("json", Terminal, True, False),
    ],
)
def test_formats(format_: str, stream: type[io.StringIO], is_json: bool, is_coloured: bool) -> None:
    text = _configured(format_, stream=stream())
    logger.error("x")
    assert text.getvalue().startswith("{") == is_json
    assert ("\x1b[" in text.getvalue()) == is_coloured


@pytest.mark.parametrize(("level", "shown"), [("debug", "dwe"), ("info", "we"), ("error", "e")])
def test_levels(level: str, shown: str) -> None:
    stream = _configured(level=level)
    logger.debug("d")
    logger.warning("w")
    logger.error("e")
    assert "".join(line[-1] for line in stream.getvalue().splitlines()) == shown


def test_a_level_of_the_command_line_goes_first() -> None:
    stream = io.StringIO()
    configure(Options("error"), (), stream, level="debug")
    logger.debug("seen")
    assert "seen" in stream.getvalue()


@pytest.mark.parametrize("format_", ["text", "json"])
def test_secrets_are_left_out_everywhere(format_: str) -> None:
    stream = _configured(format_)
    logger.info("plain {}, repr {!r}, json {}", SECRET, SECRET, json.dumps({"key": SECRET}))
    logger.bind(key=SECRET, tokens=["token1234"]).info("bound")
    with bound_run(SECRET):
        logger.info("in a run")
    try:
        try:
            raise ValueError(SECRET)
        except ValueError as exc:
            raise RuntimeError("https://host/?t=token1234") from exc
    except RuntimeError:
        logger.exception("failed with token1234")
    logging.getLogger("urllib3").warning("retrying %s", "token1234")
    text = stream.getvalue()
    assert "token1234" not in text
    assert not any(form in text for form in (SECRET, repr(SECRET)[1:-1], json.dumps(SECRET)[1:-1], "pa%22ss"))
    assert text.count(MASK) >= 8
    assert "RuntimeError" in text


def test_the_values_of_variables_are_not_shown() -> None:
    stream = _configured()
    password = "not registered"
    try:
        int("x" + str(len(password)))
    except ValueError:
        logger.exception("failed")
    assert "ValueError" in stream.getvalue()
    assert stream.getvalue().count("not registered") == 0


def test_an_exception_in_json() -> None:
    stream = _configured("json")
    try:
        raise KeyError("x")
    except KeyError:
        logger.exception("failed")
    assert json.loads(stream.getvalue())["exception"].splitlines()[-1] == "KeyError: 'x'"


def test_other_libraries_log_the_same_way() -> None:
    stream = _configured("json")
    logging.getLogger("botocore").debug("credentials")
    logging.getLogger("botocore").warning("slow {} %s", "down")
    logging.getLogger("botocore").warning("does not %d fit", "x")
    (line,) = map(json.loads, stream.getvalue().splitlines())
    assert (line["level"], line["message"]) == ("warning", "botocore: slow {} down")


@pytest.mark.parametrize("format_", ["text", "json"])
def test_file_names_cannot_steer_the_terminal(format_: str) -> None:
    stream = _configured(format_)
    logger.info("\x1b[2J\r\x07 \x9b {}", "\udcff")
    assert not set(stream.getvalue()) & set("\x1b\r\x07\x9b")
    assert "\\udcff" in stream.getvalue()


def test_a_stream_that_is_gone_ends_nothing() -> None:
    stream = _configured()
    stream.close()
    logger.info("nobody reads this")


def test_configured_twice_logs_once() -> None:
    first, second = _configured(), _configured()
    logger.info("x")
    assert first.getvalue() == ""
    assert len(second.getvalue().splitlines()) == 1


def test_stderr_is_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    configure(Options())
    logger.info("to stderr")
    captured = capsys.readouterr()
    assert captured.err.endswith("to stderr\n")
    assert captured.out == ""


@given(st.lists(st.text(min_size=1, alphabet=st.characters(blacklist_characters="*")), max_size=4), st.text())
def test_no_registered_secret_survives(secrets: list[str], text: str) -> None:
    redacted = Redactor(secrets)(text + "".join(secrets) + text)
    assert not any(secret in redacted for secret in secrets)


def test_importing_configures_nothing() -> None:
    code = "import logging, backupd.log; print(logging.getLogger().handlers)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")
