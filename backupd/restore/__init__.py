"""Restore: plan, stage, swap."""

from backupd.restore.operation import RestoreResult, restore
from backupd.restore.swap import Survey, Swap
from backupd.restore.target import RestoreRequest, Step, plan_restore, refuse_if_used

__all__ = [
    "RestoreRequest",
    "RestoreResult",
    "Step",
    "Survey",
    "Swap",
    "plan_restore",
    "refuse_if_used",
    "restore",
]
