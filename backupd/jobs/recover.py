"""Recovering, before anything else and by itself."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from backupd import recover
from backupd.engine import MountedEngine
from backupd.errors import BackupdError, SourceError
from backupd.jobs.site import Site
from backupd.runs import Draft
from backupd.runtime import Runtime


def finish_interrupted(site: Site, runtime: Runtime) -> None:
    """Bring volumes that a killed restore left in between to one side, before anything reads or writes them."""
    try:
        for recovery in recover.recover(runtime):
            site.warn(f"{recovery.subject}: {recovery.outcome}")
    except SourceError as exc:  # that volume's own backup or restore will fail, and say why
        site.warn(str(exc))


def run_recover(site: Site, draft: Draft) -> tuple[Sequence[recover.Recovery], Sequence[BackupdError]]:
    """Finish or undo all that killed processes left, in volumes, services and stores: what was done, what failed."""
    settings = site.settings
    runtime = site.runtime()
    specs = [settings.volume_spec(name) for name in settings.volumes]
    parts = [partial(recover.recover, runtime, specs)]
    if settings.engine != "mounted":  # an interrupted restore --to-dir
        here = site.runtime(MountedEngine(settings.state_dir / "scratch"))
        parts.append(partial(recover.recover, here))
    parts.append(partial(recover.recover_stores, runtime, site.stores(tuple(settings.stores))))
    done: list[recover.Recovery] = []
    errors: list[BackupdError] = []
    for part in parts:  # an engine that does not answer is no reason to leave leases behind
        try:
            done += part()
        except BackupdError as exc:
            errors.append(exc)
    for recovery in done:
        draft.note(f"{recovery.subject}: {recovery.outcome}")
    return done, errors
