"""When plans were last backed up, as their stores tell."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from backupd.errors import BackupdError, NoRepository
from backupd.jobs.site import Site

LastRuns = dict[str, datetime | None]


def last_runs(site: Site, plans: Collection[str]) -> LastRuns:
    """The time of each plan's newest snapshot by this machine in any of its stores; None: there is none.

    A plan is left out if one of its stores could not be asked and the others have nothing newer to tell.
    """
    newest: dict[str, dict[str, datetime]] = {}
    silent: set[str] = set()
    for name in sorted({store for plan in plans for store in site.settings.plans[plan].stores}):
        newest[name] = {}
        try:
            manifests, _ = site.repository_in(name).snapshots()
            machine = site.security.machine()
        except NoRepository:
            continue
        except BackupdError as exc:
            silent.add(name)
            site.warn(f"which runs were missed cannot be asked there: {exc}")
            continue
        for manifest in manifests:
            if manifest.is_run_of(manifest.plan, machine):
                newest[name][manifest.plan] = max(manifest.time, newest[name].get(manifest.plan, manifest.time))
    found: LastRuns = {}
    for plan in plans:
        stores = site.settings.plans[plan].stores
        times = [newest[store][plan] for store in stores if plan in newest[store]]
        if times or not silent.intersection(stores):
            found[plan] = max(times, default=None)
    return found
