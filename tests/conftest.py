"""Fixtures of every test: engines and stores come from `tests/support`."""

pytest_plugins = ["tests.support.engines", "tests.support.s3"]
