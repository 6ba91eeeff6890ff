"""Restore: plan, stage, stop, swap, start."""

from backupd.restore.around import Around, look_around, questions, refuse
from backupd.restore.operation import RestoreResult, restore
from backupd.restore.swap import Survey, Swap
from backupd.restore.target import RestoreRequest, Step, plan_restore, tar_notes

__all__ = [
    "Around",
    "RestoreRequest",
    "RestoreResult",
    "Step",
    "Survey",
    "Swap",
    "look_around",
    "plan_restore",
    "questions",
    "refuse",
    "restore",
    "tar_notes",
]
