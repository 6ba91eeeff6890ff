"""Whole runs: what a command does, and the daemon by itself, from the configuration to the judgement."""
