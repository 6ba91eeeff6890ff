"""Verify: whether stores still hold what their snapshots say; and repair, from a store that does."""
