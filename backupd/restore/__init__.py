"""Restore: plan, stage, stop, swap, start."""
