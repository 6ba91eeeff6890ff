"""The ways to read a volume beside the services that use it, and which one a volume gets."""

from backupd.consistency.choosing import STRATEGIES, Consistency, Entry, choose
from backupd.consistency.joining import with_enabled

__all__ = ["STRATEGIES", "Consistency", "Entry", "choose", "with_enabled"]
