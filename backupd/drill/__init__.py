"""Drill: a snapshot proves that it can be restored, by being restored."""

from backupd.drill.operation import DrillRequest, OptionsOf, drill, drill_directory
from backupd.drill.options import Check, DrillOptions

__all__ = ["Check", "DrillOptions", "DrillRequest", "OptionsOf", "drill", "drill_directory"]
