"""Drill: a snapshot proves that it can be restored, by being restored."""
