"""The command line: parses, calls operations, renders what they return. No logic of its own."""

from backupd.cli.main import main

__all__ = ["main"]
