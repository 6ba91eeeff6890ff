"""Prune: removes the snapshots that nobody wants any more, and what only they needed."""

from backupd.prune.operation import Pruned, prune
from backupd.prune.outline import Outline, PruneRequest, outline
from backupd.prune.rules import Rules, Verdict
from backupd.prune.safety import refuse_unless_safe

__all__ = ["Outline", "PruneRequest", "Pruned", "Rules", "Verdict", "outline", "prune", "refuse_unless_safe"]
