from __future__ import annotations

import io

import pytest

from backupd.socketproxy.request import BadRequest, Request, read_request


def read(data: bytes) -> Request | None:
    return read_request(io.BytesIO(data).read)


def head(*lines: str) -> bytes:
    return "\r\n".join((*lines, "", "")).encode("latin-1")


def test_a_request_in_parts() -> None:
    request = read(head("POST /v1.41/containers/create?name=a%20b&x= HTTP/1.1", "Host: d", "Content-Length: 2") + b"{}")
    assert request == Request("POST", "/v1.41", "/containers/create", {"name": "a b", "x": ""}, body=b"{}")
    assert read(head("POST /exec/1/start HTTP/1.1", "Upgrade: TCP", "Connection: Upgrade")).upgrade  # type: ignore[union-attr]
    assert read(b"") is None


@pytest.mark.parametrize(
    "line",
    [
        "GET /v1.41/../version HTTP/1.1",
        "GET /v1.41/containers/../../build HTTP/1.1",
        "GET /v1.41/./version HTTP/1.1",
        "GET //version HTTP/1.1",
        "GET /v1.41//version HTTP/1.1",
        "GET /version/ HTTP/1.1",
        "GET /%76ersion HTTP/1.1",
        "GET /v1.41/containers/a%2Fb/json HTTP/1.1",
        "GET /v1.41/containers/a%00/json HTTP/1.1",
        "GET /v1.41/containers/a;b/json HTTP/1.1",
        "GET /v1.41/containers/a\\b/json HTTP/1.1",
        "GET /v1.24/version/ HTTP/1.1",
        "GET http://localhost/version HTTP/1.1",
        "GET version HTTP/1.1",
        "GET /version#x HTTP/1.1",
        "GET  /version HTTP/1.1",
        "GET /version HTTP/1.0",
        "GET /version",
        "get /version HTTP/1.1",
        "CONNECT /version HTTP/1.1",
        "PUT /v1.41/containers/x/archive HTTP/1.1",
        "GET /version?a=1&a=2 HTTP/1.1",
        "GET /version?a HTTP/1.1",
        "GET /version?a=%ff HTTP/1.1",
        "GET /version\tHTTP/1.1",
        "GET /versi\u00f6n HTTP/1.1",
    ],
)
def test_targets(line: str) -> None:
    with pytest.raises(BadRequest):
        read(head(line, "Host: d"))


@pytest.mark.parametrize(
    "headers",
    [
        ("Content-Length: 2", "Content-Length: 2"),
        ("Content-Length: 2", "content-length: 40"),
        ("Transfer-Encoding: chunked",),
        ("Transfer-Encoding: identity",),
        ("Content-Length: 2", "Transfer-Encoding: chunked"),
        ("Content-Length: +2",),
        ("Content-Length: 0x2",),
        ("Content-Length: 2, 2",),
        ("Content-Length: -1",),
        ("Content-Length: 99999999999",),
        ("Content-Length: 2000000",),
        ("Content-Length : 2",),
        (" Content-Length: 2",),
        ("X: a", " folded: b"),
        ("X: a\nTransfer-Encoding: chunked",),
        ("X: a\rb",),
        ("X: \x00",),
        ("X\u00e4: a",),
        ("no colon",),
        ("Upgrade: tcp", "Upgrade: h2c"),
        tuple(f"X-{number}: a" for number in range(200)),
    ],
)
def test_headers(headers: tuple[str, ...]) -> None:
    with pytest.raises(BadRequest):
        read(head("POST /v1.41/containers/create HTTP/1.1", *headers) + b"{}")


@pytest.mark.parametrize("rest", [b"{}GET /version HTTP/1.1\r\n\r\n", b"{", b""])
def test_bodies(rest: bytes) -> None:
    """A second request behind the first one, and a body that is shorter than it says."""
    with pytest.raises(BadRequest):
        read(head("POST /v1.41/containers/create HTTP/1.1", "Content-Length: 2") + rest)


def test_heads_that_never_end() -> None:
    with pytest.raises(BadRequest, match="too long"):
        read(b"GET /version HTTP/1.1\r\n" + b"X: a\r\n" * 100_000)
    with pytest.raises(BadRequest, match="ends in its head"):
        read(b"GET /version HTTP/1.1\r\n")
