"""What commands do not need, they do not load: each of these takes a tenth of a second or more."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("apprise", "boto3", "docker", "fastapi", "prometheus_client", "requests", "starlette", "uvicorn")


@pytest.mark.parametrize("module", ["backupd.cli.main", "backupd.observe", "backupd.web.making"])
def test_heavy_modules_are_imported_when_they_are_used(module: str) -> None:
    program = f"import sys, {module}; print(*sorted(set({HEAVY}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
