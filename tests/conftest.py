"""Fixtures of every test: engines and stores come from `tests/support`."""

import os

from hypothesis import settings

pytest_plugins = ["tests.support.engines", "tests.support.s3", "tests.support.spread"]

settings.register_profile("backupd", deadline=None)  # machines are shared and noisy: no test depends on a time
settings.load_profile("backupd")

# Hundreds of tests start the program as a process of its own; to compile it each time is a third of what a start takes.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
