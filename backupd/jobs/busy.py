"""Whether somebody works on a plan's volumes now."""

from __future__ import annotations

from contextlib import suppress

from backupd.errors import LockedError, RunSkipped, VolumeMissing
from backupd.lock import volume_lock
from backupd.model import Plan
from backupd.runtime import Runtime


def refuse_if_busy(plan: Plan, runtime: Runtime) -> None:
    """RunSkipped if another process holds one of the volumes at this moment."""
    for spec in plan.volumes:
        with suppress(VolumeMissing):  # the run itself says so
            volume = runtime.engine.find(spec)
            try:
                with volume_lock(runtime.locks, volume):
                    pass
            except LockedError as exc:
                raise RunSkipped(f"skipped: {exc}", hint="`overlap: wait` would wait for it") from exc
