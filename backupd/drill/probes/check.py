"""Commands of the configuration, run in a copy, with what is expected of them."""

from __future__ import annotations

import re
import time

from msgspec.structs import replace

from backupd.drill.options import Check
from backupd.drill.probes.base import Results, Subject, said, without_secrets
from backupd.errors import EngineUnavailable, SourceError


def run_checks(subject: Subject, names: frozenset[str], results: Results) -> None:
    """Run those that are meant for the service, which is called by any of `names`."""
    for check in subject.options.checks:
        if check.service is None or check.service in names:
            _run(replace(subject, deadline=time.monotonic() + check.timeout_seconds), check, results)


def _run(subject: Subject, check: Check, results: Results) -> None:
    shown = " ".join(check.command)
    try:
        result = subject.run(check.command, user=check.user)
    except EngineUnavailable:
        raise
    except SourceError:
        results.failed(f"`{shown}` did not end within {check.timeout_seconds:g} s, or could not be started")
        return
    if result.exit_code != check.exit_code:
        results.failed(
            f"`{shown}` ended with {result.exit_code} instead of {check.exit_code}: {said(result, subject.service)}"
        )
    elif check.expect is not None and not re.search(check.expect, result.stdout, re.MULTILINE):
        first = without_secrets(next(iter(result.stdout.splitlines()), ""), subject.service)
        results.failed(f"`{shown}` printed {first!r}, which does not match {check.expect!r}")
    else:
        results.proven(f"`{shown}` is as expected")
