"""Restore: plan, stage, swap."""

from backupd.restore.operation import RestoreResult, restore
from backupd.restore.swap import Survey, Swap
from backupd.restore.target import RestoreRequest, Step, plan_restore

__all__ = [
    "RestoreRequest",
    "RestoreResult",
    "Step",
    "Survey",
    "Swap",
    "plan_restore",
    "restore",
]
