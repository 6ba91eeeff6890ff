"""Conditions into alerts: told when they begin, again after a while, and when they end. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

import msgspec

from backupd import words
from backupd.notify.conditions import AlertName, Condition
from backupd.notify.events import Event


class Raised(msgspec.Struct, frozen=True, kw_only=True):
    """An alert that is on: since when, and when it was last told."""

    alert: AlertName
    subject: str
    text: str
    since: datetime
    told: datetime


def step(
    raised: Mapping[str, Raised], conditions: Iterable[Condition], now: datetime, remind: timedelta
) -> tuple[dict[str, Raised], list[Event]]:
    """The alerts that are on after a look, and what is to be told. What is no longer watched ends without a word."""
    after: dict[str, Raised] = {}
    events: list[Event] = []
    for condition in conditions:
        before = raised.get(condition.key)
        if condition.state == "bad":
            new, event = _on(before, condition, now, remind)
            after[condition.key] = new
            events += [event] if event else []
        elif before is not None and condition.state == "good":
            lasted = words.duration(now - before.since)
            summary = f"no longer an alert: {condition.text}"
            events.append(
                Event("recovery", summary, (f"it lasted {lasted}: {before.text}",), condition.plan, ended="alert")
            )
        elif before is not None:
            after[condition.key] = before
    return after, events


def _on(before: Raised | None, condition: Condition, now: datetime, remind: timedelta) -> tuple[Raised, Event | None]:
    since = before.since if before else now
    due = before is None or now - before.told >= remind
    new = Raised(
        alert=condition.alert,
        subject=condition.subject,
        text=condition.text,
        since=since,
        told=now if due or before is None else before.told,
    )
    if not due:
        return new, None
    still = f"still, for {words.duration(now - since)}: " if before else ""
    return new, Event(
        "alert", f"{still}{condition.text}", (condition.text, f"since {words.moment(since)}"), condition.plan
    )
