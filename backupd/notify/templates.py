"""Titles and bodies of notifications: `string.Template`, which can put values in and do nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from string import Template

from msgspec import Struct

from backupd import words
from backupd.notify.events import Event

TITLE = "$project: $summary"
BODY = "$details"

_LONGEST = 8_000
_FIELDS = (
    "event", "summary", "details", "project", "host", "plan", "kind", "outcome", "trigger", "run", "snapshot", "stores",
    "started", "finished", "duration", "plain_size", "new_size", "stored_size", "files", "warnings", "error", "notes",
)  # fmt: skip


def check_template(text: str) -> str:
    """`text`, if it is a template that knows its fields; ValueError says what is wrong with it."""
    template = Template(text)
    if not template.is_valid():
        raise ValueError("expected a template with $name, ${name} or $$ for a dollar sign")
    if unknown := [name for name in template.get_identifiers() if name not in _FIELDS]:
        raise ValueError(f"a template knows no ${unknown[0]}: there are {', '.join(_FIELDS)}")
    if not text.strip():
        raise ValueError("expected a template, not an empty text")
    return text


class Texts(Struct, frozen=True):
    """The templates, and what does not change from event to event."""

    title: str = TITLE
    body: str = BODY
    project: str = "backupd"
    host: str = ""

    def render(self, event: Event) -> tuple[str, str]:
        """Title, one line, and body, cut to 8,000 characters."""
        fields = {**_of(event), "project": self.project, "host": self.host}
        title = " ".join(Template(self.title).substitute(fields).split())
        body = Template(self.body).substitute(fields).strip()
        return title, body if len(body) <= _LONGEST else f"{body[:_LONGEST]}\n…"


def _of(event: Event) -> Mapping[str, str]:
    fields = dict.fromkeys(_FIELDS, "")
    fields |= {"event": event.name, "summary": event.summary, "details": "\n".join(event.details)}
    fields["plan"] = event.plan or ""
    run = event.run
    if run is None:
        return fields
    return fields | {
        "kind": run.kind,
        "outcome": run.outcome,
        "trigger": run.trigger,
        "run": run.id,
        "snapshot": (run.snapshot or "")[:8],
        "stores": ", ".join(run.stores),
        "started": words.moment(run.started),
        "finished": words.moment(run.finished) if run.finished else "",
        "duration": words.duration(timedelta(seconds=run.seconds or 0)),
        "plain_size": words.size(run.plain_bytes),
        "new_size": words.size(run.new_bytes),
        "stored_size": words.size(run.stored_bytes),
        "files": f"{run.files:,}",
        "warnings": f"{run.warnings:,}",
        "error": run.error or "",
        "notes": "\n".join(run.notes),
    }
