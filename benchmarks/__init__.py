"""Measures backupd against tar, zstd, restic, borg and the guide's command: `python -m benchmarks --help`."""
