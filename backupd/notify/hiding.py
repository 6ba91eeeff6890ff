"""The parts of a URL that are secrets: a token in a path, a password, a query. Logs hold neither them nor the whole."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import unquote, urlsplit

_SHORTEST = 8
_SURELY = 20


def url_secrets(url: str) -> list[str]:
    """`url` itself and whatever in it may be a secret.

    User names and passwords are, and so are path segments, query values and hosts without a dot (where Apprise has
    the tokens of some services) that look like no word: with a digit in them, or very long.
    """
    return list(dict.fromkeys([url, *_parts(url)]))


def _parts(url: str) -> Iterator[str]:
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return
    userinfo = parts.netloc.rpartition("@")[0]
    yield from (part for part in (userinfo, *userinfo.split(":", 1)) if len(part) > 3)
    pairs = (pair.partition("=")[2] for pair in parts.query.split("&"))
    authority = parts.netloc.rpartition("@")[2]
    hosts = [authority] if "." not in host and not host.startswith("[") else []
    for part in (*hosts, *parts.path.split("/"), *pairs, parts.fragment):
        for form in {part, unquote(part)}:
            if len(form) >= _SURELY or (len(form) >= _SHORTEST and any(map(str.isdigit, form)) and not _local(form)):
                yield form


def _local(form: str) -> bool:
    return form.partition(":")[0] in {"localhost", ""}
