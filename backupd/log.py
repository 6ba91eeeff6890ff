"""What is logged, how it looks, and that no secret is in it. Nothing happens before `configure` is called."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, suppress
from datetime import UTC
from typing import TYPE_CHECKING, Any, Protocol, TextIO
from urllib.parse import quote

from loguru import logger

if TYPE_CHECKING:
    from loguru import Message, Record

MASK = "********"

_FOREIGN_LEVEL = logging.WARNING
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(0x20), 0x7F, *range(0x80, 0xA0)) if code not in {0x09, 0x0A}}


class LogOptions(Protocol):
    """`level`: debug, info, warning or error. `format`: text, json, or auto, which is text on a terminal."""

    @property
    def level(self) -> str: ...  # noqa: D102

    @property
    def format(self) -> str: ...  # noqa: D102


class Redactor:
    """Takes registered secrets out of a text, also where they were escaped for JSON, a URL or by repr."""

    def __init__(self, secrets: Iterable[str]) -> None:
        forms = {form for secret in secrets if secret for form in _forms(secret)}
        self._forms = sorted(forms, key=lambda form: (-len(form), form))

    def __call__(self, text: str) -> str:
        """`text` with every secret replaced."""
        for form in self._forms:
            text = text.replace(form, MASK)
        return text


def configure(
    options: LogOptions, secrets: Iterable[str] = (), stream: TextIO | None = None, *, level: str | None = None
) -> None:
    """Log to `stream` (stderr if None) and nowhere else; `level` goes before that of `options`.

    Warnings of other libraries, which use the standard `logging`, go the same way. May be called again.
    """
    stream = sys.stderr if stream is None else stream
    terminal = stream.isatty()
    is_json = options.format == "json" or (options.format == "auto" and not terminal)
    redact = Redactor(secrets)
    sink = _json_sink(stream, redact) if is_json else _text_sink(stream, redact)
    logger.remove()
    logger.configure(extra={}, patcher=_plain)
    logger.add(
        sink,
        level=(level or options.level).upper(),
        format=_text_format,
        colorize=terminal and not is_json,
        backtrace=False,
        diagnose=False,  # it would show the values of variables
    )
    logging.basicConfig(handlers=[_Forward()], level=_FOREIGN_LEVEL, force=True)


def bound_run(run: str) -> AbstractContextManager[None]:
    """Everything that this thread logs while the block runs carries `run`."""
    return logger.contextualize(run=run)


def bound_process(run: str) -> None:
    """The same for all threads of this process, until `configure` is called again."""
    logger.configure(extra={"run": run})


class _Forward(logging.Handler):
    """Hands records of the standard `logging` to loguru."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log with the same level and exception."""
        with suppress(ValueError, TypeError):  # a record whose arguments do not fit its message
            logger.opt(exception=record.exc_info).log(record.levelname, "{}: {}", record.name, record.getMessage())


def _forms(secret: str) -> set[str]:
    raw = secret.encode(errors="surrogatepass")
    return {secret, repr(secret)[1:-1], json.dumps(secret)[1:-1], quote(raw), quote(raw, safe="")}


def _plain(record: Record) -> None:
    """Control characters (of file names, say) must not reach a terminal."""
    record["message"] = record["message"].translate(_CONTROL)


def _text_format(record: Record) -> str:
    extra = "".join(f" <dim>{name}={{extra[{name}]}}</dim>" for name in record["extra"])
    return f"{{time:YYYY-MM-DD HH:mm:ss}} <level>{{level.name: <7}}</level> {{message}}{extra}\n{{exception}}"


def _text_sink(stream: TextIO, redact: Redactor) -> Callable[[Message], None]:
    def write(message: Message) -> None:
        _write(stream, redact(str(message)))

    return write


def _json_sink(stream: TextIO, redact: Redactor) -> Callable[[Message], None]:
    def write(message: Message) -> None:
        record = message.record
        line: dict[str, Any] = {
            "time": record["time"].astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record["level"].name.lower(),
            "message": redact(record["message"]),
        }
        line |= {name: _redacted(value, redact) for name, value in record["extra"].items() if name not in line}
        error = record["exception"]
        if error is not None and error.type is not None:
            text = "".join(traceback.format_exception(error.type, error.value, error.traceback))
            line["exception"] = redact(text.rstrip())
        _write(stream, json.dumps(line) + "\n")

    return write


def _redacted(value: object, redact: Redactor) -> Any:
    return value if value is None or isinstance(value, bool | int | float) else redact(str(value))


def _write(stream: TextIO, text: str) -> None:
    encoding = getattr(stream, "encoding", None) or "utf-8"
    with suppress(OSError, ValueError):  # nobody reads the log any more: no reason to end a backup
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()
