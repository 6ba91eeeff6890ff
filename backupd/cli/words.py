"""Numbers and times as people read them."""

from backupd.words import count, duration, moment, size

__all__ = ["count", "duration", "moment", "size"]
