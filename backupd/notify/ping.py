"""Dead-man pings, in the manner of healthchecks.io: somebody else notices when a backup does not even begin."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit, urlunsplit

from msgspec import Struct

from backupd.errors import DeliveryFailed
from backupd.history import Run
from backupd.notify.events import of_run
from backupd.notify.outbox import Outbox

if TYPE_CHECKING:
    import requests

_LONGEST_BODY = 10_000  # healthchecks.io keeps the first 100 kB, others less
_TRY_LATER = frozenset({408, 425, 429})
_NAMESPACE = uuid.UUID("6f2c1f0e-94a5-4bb1-a3a0-5ed4cc9d6a51")

Signal = Literal["start", "success", "failure"]


class PingUrls(Struct, frozen=True):
    """Where a plan's runs are announced; None: not at all. `with_id` adds `rid`, which tells runs apart.

    URLs are secrets: whoever has one can pretend that all is well.
    """

    start: str | None
    success: str | None
    failure: str | None
    method: Literal["POST", "GET"] = "POST"
    with_id: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls,
        base: str | None,
        start: str | None,
        success: str | None,
        failure: str | None,
        method: Literal["POST", "GET"],
    ) -> PingUrls:
        """`base` with `/start` and `/fail` for what has no URL of its own."""
        return cls(
            start or (_below(base, "start") if base else None),
            success or base,
            failure or (_below(base, "fail") if base else None),
            method,
            frozenset(
                name
                for name, own in (("start", start), ("success", success), ("failure", failure))
                if base is not None and own is None
            ),
        )

    def url(self, signal: Signal, run: str) -> str | None:
        """The one to call."""
        url: str | None = getattr(self, signal)
        if url is None or signal not in self.with_id:
            return url
        parts = urlsplit(url)
        rid = f"rid={uuid.uuid5(_NAMESPACE, run)}"
        return urlunsplit(parts._replace(query=f"{parts.query}&{rid}" if parts.query else rid))


class Pinger:
    """Watches backups. A run that was done in part pings failure.

    A skipped one pings nothing, so that its absence is noticed, nor does one of a part of its plan.

    `report` is told of every ping, with its plan.
    """

    def __init__(
        self,
        urls: Mapping[str, PingUrls],
        outbox: Outbox,
        timeout: float,
        hide: Callable[[str], str],
        report: Callable[[str, Run, DeliveryFailed | None], None],
        agent: str,
    ) -> None:
        self._urls = urls
        self._outbox = outbox
        self._timeout = timeout
        self._hide = hide
        self._report = report
        self._agent = agent

    def began(self, run: Run) -> None:
        """A run has begun."""
        self._ping("start", run, "")

    def ended(self, run: Run) -> None:
        """It is over."""
        if run.outcome == "skipped":
            return
        event = of_run(run)
        self._ping("success" if run.good else "failure", run, "\n".join([event.summary, *event.details]))

    def _ping(self, signal: Signal, run: Run, body: str) -> None:
        urls = self._urls.get(run.plan or "")
        counts = run.kind == "backup" and not run.part
        url = urls.url(signal, run.id) if urls is not None and counts else None
        if urls is None or url is None:
            return
        plan, method, data = run.plan or "", urls.method, self._hide(body)[:_LONGEST_BODY].encode()
        self._outbox.put(
            f"ping {plan}",
            f"ping ({signal}) of plan {plan}",
            lambda: call(url, method, data, self._timeout, self._agent),
            lambda error: self._report(plan, run, error),
        )


def call(url: str, method: str, data: bytes, timeout: float, agent: str) -> None:
    """Call a URL; DeliveryFailed, which never shows it. `timeout` in seconds, for connecting and for the answer."""
    import requests  # noqa: PLC0415  (takes a tenth of a second)

    try:
        with requests.request(
            method,
            url,
            data=data if method == "POST" else None,
            headers={"User-Agent": agent, "Content-Type": "text/plain; charset=utf-8"},
            timeout=(timeout, timeout),
            stream=True,
        ) as response:
            status = response.status_code
            answer = next(response.iter_content(64), b"") if status < 300 else b""
    except requests.RequestException as exc:
        raise _failed(exc, timeout) from None  # its message holds the URL
    except ValueError:  # urllib3 says so of some URLs
        raise DeliveryFailed("the URL is not usable", again=False) from None
    if status >= 300:
        raise DeliveryFailed(f"the answer was HTTP {status}", again=status >= 500 or status in _TRY_LATER)
    if answer.strip() == b"OK (not found)":  # with status 200
        raise DeliveryFailed("the receiver knows no such check", again=False)


def _failed(exc: requests.RequestException, timeout: float) -> DeliveryFailed:
    import requests  # noqa: PLC0415

    if isinstance(exc, requests.Timeout):
        return DeliveryFailed(f"no answer within {timeout:g} s")
    if isinstance(exc, requests.exceptions.SSLError):
        return DeliveryFailed("the certificate is not trusted (REQUESTS_CA_BUNDLE names a file of authorities)")
    if isinstance(exc, requests.exceptions.ProxyError):
        return DeliveryFailed("the proxy does not let it through")
    if isinstance(exc, requests.ConnectionError):
        return DeliveryFailed("the connection failed")
    return DeliveryFailed(f"it failed ({type(exc).__name__})", again=False)


def _below(url: str, word: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{word}"))
