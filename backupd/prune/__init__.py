"""Prune: removes the snapshots that nobody wants any more, and what only they needed."""
