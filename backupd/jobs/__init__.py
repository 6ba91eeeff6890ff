"""Whole runs: what a command does, and the daemon by itself, from the configuration to the judgement."""

from backupd.jobs.backup import judge_backup, run_backup, where
from backupd.jobs.catching_up import LastRuns, last_runs
from backupd.jobs.drill import Drilled, judge_drill, newest_to_drill, run_drill
from backupd.jobs.prune import judge_prune, note_pruned, refused, run_prune
from backupd.jobs.recover import finish_interrupted, run_recover
from backupd.jobs.site import Site
from backupd.jobs.verify import note_verified, run_verify

__all__ = [
    "Drilled",
    "LastRuns",
    "Site",
    "finish_interrupted",
    "judge_backup",
    "judge_drill",
    "judge_prune",
    "last_runs",
    "newest_to_drill",
    "note_pruned",
    "note_verified",
    "refused",
    "run_backup",
    "run_drill",
    "run_prune",
    "run_recover",
    "run_verify",
    "where",
]
