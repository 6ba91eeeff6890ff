"""A receiver of notifications, through Apprise."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from backupd.errors import ConfigError, DeliveryFailed
from backupd.notify.events import EventName

if TYPE_CHECKING:
    from apprise import NotifyBase

_TYPES: dict[EventName, str] = {
    "success": "success", "warning": "warning", "failure": "failure", "recovery": "success", "alert": "warning",
}  # fmt: skip


class AppriseReceiver:
    """Where a URL leads. ConfigError if Apprise knows no such service. Importing Apprise takes half a second.

    Apprise heeds HTTPS_PROXY, NO_PROXY and REQUESTS_CA_BUNDLE. `timeout` in seconds, for connecting and for each
    answer, unless the URL says `cto` and `rto`. `hide` takes secrets out of what Apprise says.
    """

    def __init__(self, name: str, url: str, timeout: float, hide: Callable[[str], str]) -> None:
        from apprise import Apprise, AppriseAsset  # noqa: PLC0415

        logging.getLogger("apprise").propagate = False  # what it says is part of the error
        asset = AppriseAsset(
            app_id="backupd", app_desc="backupd", app_url="", image_url_mask=None, image_url_logo=None,
            async_mode=False, storage_mode="memory",
        )  # fmt: skip
        with _listening() as said:
            server = Apprise.instantiate(url, asset=asset)
        if server is None:
            raise ConfigError(
                f"notifications.targets.{name}.url is no URL that Apprise can use{_because(said, hide)}",
                hint="https://appriseit.com/services/ lists them",
            )
        self._server: NotifyBase = server
        self._hide = hide
        if "cto=" not in url:
            server.socket_connect_timeout = timeout
        if "rto=" not in url:
            server.socket_read_timeout = timeout

    def send(self, event: EventName, title: str, body: str) -> None:
        """Deliver; DeliveryFailed with what Apprise said. May be called again."""
        from apprise import Apprise, NotifyFormat, NotifyType  # noqa: PLC0415

        sender = Apprise(asset=self._server.asset)
        sender.add(self._server)
        with _listening() as said:
            sent = sender.notify(
                body=body, title=title, notify_type=NotifyType(_TYPES[event]), body_format=NotifyFormat.TEXT
            )
        if not sent:
            raise DeliveryFailed(f"not delivered{_because(said, self._hide)}")


def _because(said: list[str], hide: Callable[[str], str]) -> str:
    return f": {' '.join(hide(said[-1]).split())}" if said else ""


@contextmanager
def _listening() -> Iterator[list[str]]:
    """What Apprise warns of in this thread while the block runs."""
    said: list[str] = []
    handler = _Listener(said, threading.get_ident())
    logger = logging.getLogger("apprise")
    logger.addHandler(handler)
    try:
        yield said
    finally:
        logger.removeHandler(handler)


class _Listener(logging.Handler):
    def __init__(self, said: list[str], thread: int) -> None:
        super().__init__(logging.WARNING)
        self._said = said
        self._thread = thread

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self._said.append(record.getMessage())
