"""HTTP/1.1 requests, read strictly (RFC 9112): what two readers could take in two ways is no request.

One request a connection. No chunked bodies, no continued lines, no percent-encoding in paths, no repeated parameters.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl

from msgspec import Struct

HEAD_BYTES = 16 * 1024
BODY_BYTES = 1024 * 1024
_LINE = re.compile(rb"(GET|HEAD|POST|DELETE) (/[!-~]*) HTTP/1\.1")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\x20-\x7e\t]*?)[ \t]*")
_PATH = re.compile(r"(?:/v1\.[4-9][0-9])?((?:/[A-Za-z0-9_.:@-]+)+)")
_FEW = 100


class BadRequest(Exception):  # noqa: N818
    """Not a request that can be understood in one way only."""


class Request(Struct, frozen=True):
    """A request in parts. `version` is the prefix that the client chose, such as `/v1.41`, or nothing."""

    method: str
    version: str
    path: str
    query: Mapping[str, str]
    upgrade: bool = False
    body: bytes = b""

    def document(self) -> dict[str, Any]:
        """The body as a JSON object; BadRequest for anything else, keys that are given twice included."""
        try:
            found = json.loads(self.body.decode(), object_pairs_hook=_once, parse_constant=_no_constant)
        except (ValueError, RecursionError) as exc:
            raise BadRequest(f"the body is no JSON object: {exc}") from None
        if not isinstance(found, dict):
            raise BadRequest("the body is no JSON object")
        return found


def read_request(receive: Callable[[int], bytes]) -> Request | None:
    """Read one request; None if the client went away without a word. `receive` returns at most that many bytes."""
    head, rest = _read_head(receive)
    if not head:
        return None
    first, *lines = head.split(b"\r\n")
    line = _LINE.fullmatch(first)
    if line is None:
        raise BadRequest("the request line cannot be understood")
    headers = _headers(lines)
    version, path, query = _target(line[2].decode())
    body = _read_body(headers, rest, receive)
    upgrade = headers.get("upgrade", "").lower() == "tcp"
    return Request(line[1].decode(), version, path, query, upgrade, body)


def _read_head(receive: Callable[[int], bytes]) -> tuple[bytes, bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        if len(data) > HEAD_BYTES:
            raise BadRequest("the head of the request is too long")
        more = receive(4096)
        if not more:
            if data:
                raise BadRequest("the request ends in its head")
            return b"", b""
        data += more
    head, _, rest = data.partition(b"\r\n\r\n")
    return head, rest


def _headers(lines: list[bytes]) -> dict[str, str]:
    if len(lines) > _FEW:
        raise BadRequest("too many headers")
    headers: dict[str, str] = {}
    for line in lines:
        header = _HEADER.fullmatch(line)
        if header is None:
            raise BadRequest("a header cannot be understood")
        name = header[1].decode().lower()
        if name in headers and name in {"content-length", "host", "transfer-encoding", "upgrade"}:
            raise BadRequest(f"the header {name} is given twice")
        headers[name] = header[2].decode()
    if "transfer-encoding" in headers:
        raise BadRequest("bodies have to come with their length")
    return headers


def _target(target: str) -> tuple[str, str, dict[str, str]]:
    raw, mark, query = target.partition("?")
    matched = _PATH.fullmatch(raw)
    if matched is None or any(part in {".", ".."} for part in raw.split("/")):
        raise BadRequest(f"the path {raw[:200]} is not one of this API's")
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True, errors="strict") if mark and query else []
    except ValueError:
        raise BadRequest("the query cannot be understood") from None
    if len(dict(pairs)) != len(pairs):
        raise BadRequest("a parameter is given twice")
    return raw[: matched.start(1)], matched[1], dict(pairs)


def _read_body(headers: Mapping[str, str], rest: bytes, receive: Callable[[int], bytes]) -> bytes:
    said = headers.get("content-length", "0")
    if not re.fullmatch(r"[0-9]{1,9}", said):
        raise BadRequest("the length of the body cannot be understood")
    length = int(said)
    if length > BODY_BYTES:
        raise BadRequest("the body is too long")
    while len(rest) < length:
        more = receive(length - len(rest))
        if not more:
            raise BadRequest("the request ends in its body")
        rest += more
    if len(rest) > length:
        raise BadRequest("something follows the request")
    return rest


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len({key.lower() for key in found}) != len(pairs):  # the Engine's reader takes any case, and the last one
        raise ValueError("a key is given twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number")
