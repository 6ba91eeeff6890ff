"""`backupd doctor`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Annotated

import typer
from msgspec.structs import replace

from backupd.cli import words
from backupd.cli.options import Session, command
from backupd.cli.output import Output
from backupd.doctor import Finding, Level, Patient, all_checks, examine
from backupd.wiring import unprepared_runtime

_SIGNS: dict[Level, tuple[str, str]] = {
    "ok": ("✓", "green"),
    "note": ("·", "dim"),
    "warning": ("!", "yellow"),
    "error": ("✗", "bold red"),
}


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, "doctor")
    def doctor(
        session: Session,
        quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Warnings and errors only.")] = False,
    ) -> None:
        """Look at everything that a deployment can get wrong, and say what to do about it.

        Engine, volumes and how each will be read, helper image, room, clocks, stores and what their credentials can do
        (tried with probe objects), lifecycle rules, keys, schedules, ages. Exit code 0: no errors, though there may be
        warnings; 1: errors; 2: the configuration can't be read.
        """
        settings = session.settings
        runtime = unprepared_runtime(settings, session.output.progress, security=session.security)
        session.closing(runtime.engine)
        patient = Patient(settings, runtime, session.stores(tuple(settings.stores)), session.identity)
        found = _told(session.output, examine(all_checks(patient)), quiet=quiet)
        counts = Counter(finding.result.level for finding in found)
        session.output.document(
            {
                "ok": not counts["error"],
                "counts": {level: counts[level] for level in _SIGNS},
                "findings": [
                    {
                        "area": finding.area,
                        "level": finding.result.level,
                        "subject": finding.result.subject,
                        "text": finding.result.text,
                        "advice": finding.result.advice,
                    }
                    for finding in found
                ],
            }
        )
        said = f"{words.count(counts['error'], 'error')}, {words.count(counts['warning'], 'warning')}"
        session.output.line(f"{said}, {counts['ok']} found well", style="bold red" if counts["error"] else "bold")
        if counts["error"]:
            raise typer.Exit(1)


def _told(output: Output, findings: Iterable[Finding], *, quiet: bool) -> list[Finding]:
    """Print each as it is found."""
    found: list[Finding] = []
    area = ""
    for finding in findings:
        advice = finding.result.advice
        result = replace(
            finding.result,
            subject=output.redact(finding.result.subject),
            text=output.redact(finding.result.text),
            advice=output.redact(advice) if advice else None,
        )
        found.append(Finding(finding.area, result))
        if quiet and result.level not in {"warning", "error"}:
            continue
        if finding.area != area:
            area = finding.area
            output.line(area, style="bold")
        sign, style = _SIGNS[result.level]
        output.line(f"  {sign} {result.subject}: {result.text}", style="" if result.level == "ok" else style)
        if result.advice and result.level != "ok":
            output.line(f"      → {result.advice}")
    return found
