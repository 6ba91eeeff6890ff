"""Telling people: notifications through Apprise, dead-man pings, alerts. Nothing here ever fails a run."""

from backupd.notify.conditions import Limits, SizeLimits
from backupd.notify.events import EVENTS, Event, EventName
from backupd.notify.hiding import url_secrets
from backupd.notify.notifier import Notifier, Routing, Target
from backupd.notify.outbox import Outbox
from backupd.notify.ping import Pinger, PingUrls
from backupd.notify.templates import BODY, TITLE, Texts, check_template
from backupd.notify.watchdog import Watchdog

__all__ = [
    "BODY",
    "EVENTS",
    "TITLE",
    "Event",
    "EventName",
    "Limits",
    "Notifier",
    "Outbox",
    "PingUrls",
    "Pinger",
    "Routing",
    "SizeLimits",
    "Target",
    "Texts",
    "Watchdog",
    "check_template",
    "url_secrets",
]
